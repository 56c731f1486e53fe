# The Nix package of subst. The crates are those of Cargo.lock, with its checksums.
{
  lib,
  stdenv,
  rustPlatform,
  installShellFiles,
}:

rustPlatform.buildRustPackage {
  pname = "subst";
  version = (lib.importTOML ../../Cargo.toml).package.version;

  src = lib.cleanSource ../..;
  cargoLock.lockFile = ../../Cargo.lock;

  # The integration tests start servers and namespaces, which need more than a build environment has.
  cargoTestFlags = [ "--lib" ];

  nativeBuildInputs = [ installShellFiles ];
  postInstall =
    ''
      install -D -m 755 packaging/guix-daemon/guix "$out/lib/subst/guix"
    ''
    + lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
      for shell in bash zsh fish; do
        "$out/bin/subst" completions "$shell" > "subst.$shell"
      done
      installShellCompletion subst.bash subst.zsh subst.fish
      "$out/bin/subst" man manual
      installManPage manual/*
    '';

  meta = {
    description = "Fetches substitutes for GNU Guix and Nix";
    license = with lib.licenses; [
      mit
      asl20
    ];
    mainProgram = "subst";
    platforms = lib.platforms.linux;
  };
}
