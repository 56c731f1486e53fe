# subst for Nix: `nix build`, `nix run . -- --help`, `nix profile install`. The overlay adds it to other packages.
{
  description = "Fetches substitutes for GNU Guix and Nix";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "i686-linux"
        "armv7l-linux"
        "riscv64-linux"
        "powerpc64le-linux"
      ];
      packagesFor = system: rec {
        subst = nixpkgs.legacyPackages.${system}.callPackage ./packaging/nix/package.nix { };
        default = subst;
      };
    in
    {
      packages = nixpkgs.lib.genAttrs systems packagesFor;

      overlays.default = final: previous: {
        subst = final.callPackage ./packaging/nix/package.nix { };
      };
    };
}
