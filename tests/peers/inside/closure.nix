# The same test closure for Nix: see scheme/closure.scm. Needs `sandbox = false`.
let
  shell = "/bin/sh";
  make = name: arguments: derivation {
    inherit name;
    system = builtins.currentSystem;
    builder = shell;
    args = arguments;
  };
  script = file: "${builtins.path { path = file; name = baseNameOf file; }}";
  item = { package, name, itself, plain, needs }: make name
    ([ (script ./build-item) package (if itself then "yes" else "no") ] ++ map toString needs
      ++ (if plain == null then [ ] else [ "${builtins.path { path = plain; name = "copyright-${package}"; }}" ]));
  special = name: kind: needs: make name ([ (script ./build-special) kind ] ++ map toString needs);
  items = import /subst-closure/plan.nix item;
  file = special "subst-file" "file" [ items.libc6 ];
  twins = special "subst-twins" "twins" [ file ];
in
builtins.attrValues items ++ [
  file
  twins
  (special "subst-link" "link" [ file ])
  (special "subst-program" "program" [ file ])
  (special "subst-empty" "empty" [ ])
  (special "subst-deep" "deep" [ twins ])
  (special "subst-names" "names" [ twins file ])
]
