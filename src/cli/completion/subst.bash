# Completions of subst for bash, from `subst completions bash`.

_subst() {
    local line=${COMP_LINE:0:COMP_POINT} rest trimmed word program index kind= candidate help
    local -a words=()
    COMPREPLY=()

    # Bash also splits words at ':' and '='. Those that no blank separates are one word.
    rest=$line
    for ((index = 0; index <= COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        trimmed=${rest#"${rest%%[![:blank:]]*}"}
        if ((index == COMP_CWORD)); then word=$trimmed; fi
        if [[ $trimmed != "$rest" || $index == 0 ]]; then
            words+=("$word")
        else
            words[${#words[@]} - 1]+=$word
        fi
        rest=${trimmed#"$word"}
    done

    program=${words[0]}
    type -P -- "$program" > /dev/null || program=subst
    while IFS=$'\t' read -r candidate help; do
        if [[ -z $kind ]]; then kind=$candidate; else COMPREPLY+=("$candidate"); fi
    done < <("$program" complete-words -- "${words[@]:1}" 2> /dev/null)

    local current=${words[${#words[@]} - 1]} value
    value=$current
    if [[ $current == --*=* ]]; then value=${current#*=}; fi
    # Bash replaces only what follows the last ':' or '='.
    local kept=${current%"${current##*[:=]}"}
    COMPREPLY=("${COMPREPLY[@]#"$kept"}")
    case $kind in
        files)
            compopt -o filenames 2> /dev/null
            while IFS= read -r candidate; do COMPREPLY+=("$candidate"); done < <(compgen -f -- "$value")
            ;;
        directories)
            compopt -o filenames 2> /dev/null
            while IFS= read -r candidate; do COMPREPLY+=("$candidate"); done < <(compgen -d -- "$value")
            ;;
    esac
}

complete -F _subst subst
