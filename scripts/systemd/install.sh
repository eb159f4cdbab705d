# What install-agent and install-coordinator share. Read by them; not a program.
# They set `unit`, `root` (empty, or the folder of a dry installation) and `begin` (whether to start).
# shellcheck shell=sh disable=SC2154

stop() {
    echo "$(basename "$0"): $1" >&2
    exit "${2:-1}"
}

# Refuses option $1 if it is the last of the $2 remaining arguments, and so has no value.
need() {
    [ "$2" -ge 2 ] || stop "$1 needs a value; --help shows how" 2
}

check_root() {
    if [ -z "$root" ]; then
        [ "$(id -u)" = 0 ] || stop "only root can install: use sudo, or --root DIR for a dry run"
        [ -d /run/systemd/system ] ||
            stop "systemd does not run here: use --root DIR and start the program by other means"
    else
        mkdir -p "$root"
        root=$(cd "$root" && pwd)
        # An installation below `/` is not a dry run.
        [ "$root" != / ] || stop "--root / is the system itself: leave --root out" 2
    fi
}

# Creates a folder with a mode and, on the system, an owner.
folder() { # path mode owner
    mkdir -p "$root$1"
    chmod "$2" "$root$1"
    own "$3" "$1"
}

own() { # owner path...
    owner=$1
    shift
    for path in "$@"; do
        [ -n "$root" ] || chown "$owner" "$path"
    done
}

# Installs a file atomically: a running program keeps the old one, and no reader sees a partial file.
place() { # source target mode
    mkdir -p "$(dirname "$root$2")"
    cp "$1" "$root$2.new"
    chmod "$3" "$root$2.new"
    mv "$root$2.new" "$root$2"
}

# Writes standard input to a file, unless the file exists: settings belong to the host.
settle() { # target mode owner
    mkdir -p "$(dirname "$root$1")"
    if [ -e "$root$1" ]; then
        cat >/dev/null
        echo "kept $root$1"
    else
        (umask 077 && cat >"$root$1.new")
        chmod "$2" "$root$1.new"
        own "$3" "$1.new"
        mv "$root$1.new" "$root$1"
    fi
}

add_user() { # name home
    [ -z "$root" ] || return 0
    id "$1" >/dev/null 2>&1 && return 0
    shell=$(command -v nologin || echo /bin/false)
    useradd --system --user-group --home-dir "$2" --no-create-home --shell "$shell" "$1"
}

# Refuses a value that would not remain one word in a file of settings.
plain() { # what value
    case $2 in
    *[!A-Za-z0-9_.:/@%?=,+~\ -]*) stop "$1 has characters that do not belong there: $2" 2 ;;
    esac
}

start_service() {
    [ -z "$root" ] || return 0
    systemctl daemon-reload
    systemctl enable --quiet "$unit"
    [ "$begin" = yes ] || return 0
    systemctl restart "$unit" ||
        stop "$unit does not start: journalctl -u $unit says why"
    echo "$unit runs"
}

stop_service() {
    [ -z "$root" ] || return 0
    systemctl disable --now --quiet "$unit" 2>/dev/null || :
}

reload_services() {
    [ -z "$root" ] || return 0
    systemctl daemon-reload
}

remove_user() { # name
    [ -z "$root" ] || return 0
    if id "$1" >/dev/null 2>&1; then userdel "$1"; fi
}
