#!/bin/bash
# The package definitions in packaging/guix and flake.nix, as far as real Guix and Nix accept them without a network.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

# checkout: the files that a commit would have, since Guix and Nix copy the directory.
checkout() {
    mkdir -p "$WORK/checkout"
    (cd "$REPOSITORY" && git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --create) |
        tar --extract --directory="$WORK/checkout"
}

in_guix() { client_enter "$WORK/client" --bind "$WORK/checkout" /checkout "$@"; }

# The derivation of the program, with one of each crate.
guix_build() {
    client_new "$WORK/client"
    in_guix sh /subst-peers/inside/with-daemon --no-substitutes \
        guix build --dry-run --no-grafts -L /checkout/packaging/guix subst 2> "$WORK/plan"
    tail -n 1 "$WORK/plan"
    grep -q -- '-subst-.*\.drv$' "$WORK/plan"
    expect_equal crates "$(grep -c -- '-rust-.*\.tar\.gz\.drv$' "$WORK/plan")" "$(grep -c '^checksum' "$WORK/checkout/Cargo.lock")"
}

# The checks that need no network, and no derivation for each of the systems that Guix supports.
guix_lint() {
    in_guix sh /subst-peers/inside/with-daemon --no-substitutes guix lint -L /checkout/packaging/guix \
        -c name,synopsis,description,license,inputs-should-be-native,input-labels,formatting,wrapper-inputs subst > "$WORK/lint" 2>&1
    cat "$WORK/lint"
    [ ! -s "$WORK/lint" ]
}

# The service installs the settings, and the daemon has the helper.
guix_service() {
    cp "$PEERS_HERE/scheme/service.scm" "$WORK/checkout/service.scm"
    in_guix guix repl -L /checkout/packaging/guix -- /checkout/service.scm > "$WORK/service"
    cat "$WORK/service"
    grep -qx 'environment GUIX=/run/current-system/profile/lib/subst/guix' "$WORK/service"
    grep -qx 'etc subst' "$WORK/service"
    grep -qx 'profile subst' "$WORK/service"
}

# A stand-in for nixpkgs with what the package uses: what it makes of it is a derivation that could be built.
nix_flake() {
    mkdir -p "$WORK/nixpkgs"
    cat > "$WORK/nixpkgs/flake.nix" <<'NIX'
{
  outputs = _:
    let
      lib = {
        genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
        importTOML = file: builtins.fromTOML (builtins.readFile file);
        cleanSource = source: source;
        optionalString = condition: text: if condition then text else "";
        licenses = { mit = { spdxId = "MIT"; }; asl20 = { spdxId = "Apache-2.0"; }; };
        platforms.linux = [ "x86_64-linux" "aarch64-linux" ];
      };
      packages = system: rec {
        stdenv = { buildPlatform.canExecute = other: true; hostPlatform = system; };
        installShellFiles = derivation { name = "install-shell-files"; inherit system; builder = "/bin/sh"; };
        rustPlatform.buildRustPackage = arguments: (derivation {
          name = "${arguments.pname}-${arguments.version}";
          inherit system;
          inherit (arguments) nativeBuildInputs postInstall cargoTestFlags src;
          lock = arguments.cargoLock.lockFile;
          builder = "/bin/sh";
        }) // { inherit (arguments) meta version; };
        callPackage = file: arguments:
          let f = import file; in f (builtins.intersectAttrs (builtins.functionArgs f) ({ inherit lib stdenv installShellFiles rustPlatform; } // arguments));
      };
    in
    { inherit lib; legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" "i686-linux" "armv7l-linux" "riscv64-linux" "powerpc64le-linux" ] packages; };
}
NIX
    enter --bind "$WORK/checkout" /checkout --bind "$WORK/nixpkgs" /nixpkgs sh -c 'set -e
        cp -r /checkout /tmp/flake
        trap "rm -rf /tmp/flake" EXIT
        nix="nix --extra-experimental-features nix-command --extra-experimental-features flakes --option flake-registry /dev/null"
        override="--override-input nixpkgs path:/nixpkgs --no-write-lock-file"
        $nix flake check --no-build --all-systems $override path:/tmp/flake
        $nix eval --raw $override path:/tmp/flake#subst.version' > "$WORK/flake"
    expect_equal version "$(cat "$WORK/flake")" "$("$SUBST" --version | cut -d ' ' -f 2)"
}

checkout
check package-guix-build guix_build
check package-guix-lint guix_lint
check package-guix-service guix_service
check package-nix-flake nix_flake
