#!/usr/bin/env python3
"""run-documented.py PAGE KIND [NAME=VALUE]... -- SHELL...: run the `console KIND` blocks of the document PAGE in one shell.

SHELL is the command that gets `-c` and the script. Each NAME in a command is replaced by VALUE first: a server's address in the
place of an example. A command must end with status 0,
unless the next one is `echo $?`. Where the document shows output, its lines have to be among those of the command, in this order; `...`
in them stands for any text, and blanks count once.
"""

import fnmatch
import subprocess
import sys

SEPARATOR = "--- end of the output, with status "


def blocks(text, kind):
    """The lines of the blocks of that kind."""
    wanted = None
    for line in text.splitlines():
        if line.startswith("```"):
            wanted = line == f"```console {kind}" if wanted is None else None
        elif wanted:
            yield line


def commands(lines):
    """Pairs of a command and the lines of output that are shown below it. A command goes on after a backslash, and up to END."""
    found = []
    until_end = False
    for line in lines:
        if found and (until_end or found[-1][0].endswith("\\")):
            found[-1][0] += "\n" + line
            until_end = until_end and line != "END"
        elif line.startswith("$ "):
            found.append([line[2:], []])
            until_end = line.endswith("<<'END'")
        else:
            found[-1][1].append(line)
    return found


def is_shown(shown, output):
    """Whether the lines `shown` are in `output` in this order."""
    lines = iter(" ".join(line.split()) for line in output.splitlines())
    for line in shown:
        pattern = " ".join(line.split()).replace("[", "[[]").replace("...", "*")
        if not any(fnmatch.fnmatchcase(found, pattern) for found in lines):
            return False
    return True


def main():
    page, kind, *rest = sys.argv[1:]
    replacements, shell = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    with open(page) as file:
        found = commands(blocks(file.read(), kind))
    if not found:
        sys.exit(f"{page} has no block `console {kind}`")
    script = "exec 2>&1 < /dev/null\n"
    for command, _ in found:
        for pair in replacements:
            command = command.replace(*pair.split("=", 1))
        script += f"{command}\nstatus=$?; echo; echo '{SEPARATOR}'$status; (exit $status)\n"

    output = subprocess.run([*shell, "-c", script], stdout=subprocess.PIPE).stdout.decode(errors="replace")
    first, *rest = output.split(SEPARATOR)
    outputs = [first] + [part.partition("\n")[2] for part in rest]
    statuses = [part.partition("\n")[0] for part in rest]
    failed = False
    for number, (command, shown) in enumerate(found):
        status = statuses[number] if number < len(statuses) else "none: the shell ended"
        next_command = found[number + 1][0] if number + 1 < len(found) else ""
        wrong_status = status != "0" and next_command != "echo $?"
        text = outputs[number] if number < len(outputs) else ""
        wrong_output = not is_shown(shown, text)
        print(f"$ {command}\n{text.rstrip()}\n[status {status}]")
        if wrong_status or wrong_output:
            failed = True
            print(f"WRONG: {'status' if wrong_status else 'output, the document shows ' + repr(shown)}")
    sys.exit(failed)


main()
