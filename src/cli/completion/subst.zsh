#compdef subst
# Completions of subst for zsh, from `subst completions zsh`.

_subst() {
    local -a lines found
    local kind line
    lines=("${(@f)$("${words[1]}" complete-words -- "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2> /dev/null)}")
    kind=${lines[1]}
    shift lines

    # The name of an option stays; its value is completed.
    local value_only=
    if [[ $PREFIX == --*=* ]]; then
        compset -P '*='
        value_only=1
    fi
    for line in "${lines[@]}"; do
        local candidate=${line%%$'\t'*} help=
        if [[ $line == *$'\t'* ]]; then help=${line#*$'\t'}; fi
        if [[ -n $value_only ]]; then candidate=${candidate#--*=}; fi
        found+=("${candidate//:/\\:}${help:+:$help}")
    done

    if (( $#found )); then
        _describe -t words 'word' found
    fi
    case $kind in
        files) _files ;;
        directories) _files -/ ;;
    esac
}

if [[ $funcstack[1] == _subst ]]; then
    _subst "$@"
else
    compdef _subst subst
fi
