#!/bin/bash
# The package definitions in packaging/guix and flake.nix, as far as real Guix and Nix accept them without a network.
set -euo pipefail
# shellcheck source=../checks.sh
. "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
fresh_work

# The newest Rust of Guix 1.5.
GUIX_RUST=1.88.0
GUIX_LEFT_OUT="(delete 'validate-runpath) (delete 'check-for-pregenerated-files) (delete 'patch-source-shebangs) \
(delete 'patch-generated-file-shebangs) (delete 'check) "

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

# Run the script that guix-daemon would run, as it would: as another user, without a network or a home directory. The Rust
# toolchain, GCC and the other inputs are those of this machine, so that the search for libraries is left out; so are steps that read
# every file of every crate, and the unit tests. Without optimization it is faster.
guix_builder() {
    local crates rust guile=$PEERS_ROOT/usr tool build=$WORK/build out=00000000000000000000000000000000-subst
    rustc "+$GUIX_RUST" --version || rustup toolchain install --profile minimal "$GUIX_RUST" ||
        { echo "skipped: Rust $GUIX_RUST cannot be installed"; return 0; }
    rust=$(rustc "+$GUIX_RUST" --print sysroot)
    (cd "$REPOSITORY" && cargo fetch --quiet --locked)
    crates=$(echo "${CARGO_HOME:-$HOME/.cargo}"/registry/cache/*)
    python3 "$PEERS_HERE/stand-in-inputs.py" "$WORK"/client/store/*-subst-*-builder "$WORK/client/store" "$crates"

    # GCC looks for its parts beside itself: it has to be called by its name.
    mkdir -p "$build/tools" "$build/etc" "$build/tmp"
    ln -s /usr/bin/* "$build/tools/"
    rm -f "$build/tools/cc" "$build/tools/gcc"
    for tool in cc gcc; do printf '#!/usr/bin/bash\nexec /usr/bin/gcc "$@"\n' > "$build/tools/$tool"; done
    chmod +x "$build/tools/cc" "$build/tools/gcc"
    echo 'builder:x:30001:30000::/homeless-shelter:/noshell' > "$build/etc/passwd"
    echo '127.0.0.1 localhost' > "$build/etc/hosts"
    sed "s/(modify-phases %standard-phases /&$GUIX_LEFT_OUT/" "$WORK"/client/store/*-subst-*-builder > "$build/builder"

    bwrap --unshare-all --uid 30001 --gid 30000 --die-with-parent --clearenv --proc /proc --dev /dev --chdir /tmp \
        --ro-bind /usr /usr --symlink usr/lib /lib --symlink usr/lib64 /lib64 --ro-bind /usr/bin/bash /bin/sh \
        --ro-bind "$rust" /rust --ro-bind "$build/tools" /tools \
        --ro-bind "$guile" /guile/usr --symlink usr/lib /guile/lib --ro-bind "$build/etc" /etc \
        --bind "$WORK/client/store" /gnu/store --ro-bind "$build/builder" /builder --bind "$build/tmp" /tmp \
        --setenv HOME /homeless-shelter --setenv PATH /path-not-set --setenv TMPDIR /tmp --setenv NIX_STORE /gnu/store --setenv out "/gnu/store/$out" \
        --setenv NIX_BUILD_CORES "$(nproc)" --setenv CARGO_PROFILE_RELEASE_LTO off --setenv CARGO_PROFILE_RELEASE_OPT_LEVEL 0 \
        --setenv CARGO_PROFILE_RELEASE_CODEGEN_UNITS 16 --setenv GUILE_AUTO_COMPILE 0 \
        --setenv GUILE_LOAD_PATH /guile/usr/share/guile/3.0:/guile/usr/share/guile/site/3.0 \
        --setenv GUILE_LOAD_COMPILED_PATH /guile/usr/lib/x86_64-linux-gnu/guile/3.0/ccache:/guile/usr/lib/x86_64-linux-gnu/guile/3.0/site-ccache \
        /guile/usr/lib64/ld-linux-x86-64.so.2 --library-path /guile/usr/lib/x86_64-linux-gnu \
        /guile/usr/lib/x86_64-linux-gnu/guile/3.0/bin/guile --no-auto-compile /builder > "$WORK/phases" 2>&1 ||
        { tail -n 30 "$WORK/phases"; return 1; }

    expect_equal version "$("$WORK/client/store/$out/bin/subst" --version)" "$("$SUBST" --version)"
    (cd "$WORK/client/store/$out" && ls lib/subst/guix share/man/man1/subst-fetch.1.zst share/man/man5/subst.toml.5.zst \
        share/bash-completion/completions/subst share/zsh/site-functions/_subst share/fish/vendor_completions.d/subst.fish)
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
check package-guix-builder guix_builder
check package-guix-lint guix_lint
check package-guix-service guix_service
check package-nix-flake nix_flake
