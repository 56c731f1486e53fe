# Completions of subst for fish, from `subst completions fish`.

function __subst_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l lines (command $words[1] complete-words -- $words[2..-1] "$current" 2> /dev/null)
    set -l kind $lines[1]
    for line in $lines[2..-1]
        echo $line
    end
    switch "$kind"
        case files
            __fish_complete_path "$current"
        case directories
            __fish_complete_directories "$current"
    end
end

complete -c subst -f -a '(__subst_complete)'
