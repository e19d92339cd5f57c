# The real server and the real client, installed into target/tools. Sourced by scripts/test, scripts/demo and scripts/bench.
# shellcheck shell=bash

NGIT_GRASP_VERSION=3.0.9
NGIT_VERSION=3.0.3

# What comes now, and after how long, in minutes and seconds.
say() { printf '\033[1m==> %d:%02d  %s\033[0m\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }
fail() {
    printf '\033[1;31mError:\033[0m %s\n' "$*" >&2
    exit 1
}

# rustup installs here; a shell that has not read its profile since would not find it.
use_cargo() {
    command -v cargo >/dev/null || PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    command -v cargo >/dev/null || fail "cargo is missing: install Rust from https://rustup.rs"
    command -v git >/dev/null || fail "git is missing: install it (Debian: apt-get install git)"
}

# The tools are C at their core: a compiler, make, pkg-config and the OpenSSL headers.
need_c() {
    has_c && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing a C compiler, make, pkg-config and the OpenSSL headers"
        apt-get update -q && apt-get install -qy build-essential pkg-config libssl-dev
    fi
    has_c || fail "a C compiler, make, pkg-config or the OpenSSL headers are missing:
  Debian, Ubuntu: sudo apt-get install build-essential pkg-config libssl-dev
  Fedora:         sudo dnf install gcc make pkgconf-pkg-config openssl-devel
  Arch:           sudo pacman -S base-devel openssl
  macOS:          xcode-select --install && brew install pkgconf openssl"
}
has_c() {
    command -v cc >/dev/null && command -v make >/dev/null &&
        command -v pkg-config >/dev/null && pkg-config --exists openssl
}

# install_tool CRATE VERSION PROGRAM: does nothing when PROGRAM already says VERSION.
install_tool() {
    local crate=$1 version=$2 program=$3
    if [[ "$("$TOOLS_ROOT/bin/$program" --version 2>/dev/null || true)" == *" $version"* ]]; then
        return
    fi
    need_c
    say "Installing $crate $version into $TOOLS_ROOT (about four minutes on two cores, once)"
    # One folder for both: an interrupted build goes on where it was, and what they share is compiled once.
    # Without their fat LTO, which is one long step on one core, and optimised as far as it is quick to do: a test server
    # has little to compute.
    CARGO_TARGET_DIR="$TOOLS_ROOT-build" CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=1 cargo install "$crate" --version "$version" --locked --force --root "$TOOLS_ROOT" ||
        fail "$crate $version could not be installed (see above)"
    [[ "$("$TOOLS_ROOT/bin/$program" --version)" == *" $version"* ]] || fail "$program is not $version"
}

# Where the tools are: $GRASP_MIRROR_TOOLS (a folder with the programs; nothing is installed then), else target/tools.
install_server() {
    [ -n "${GRASP_MIRROR_TOOLS:-}" ] || install_tool ngit-grasp "$NGIT_GRASP_VERSION" ngit-grasp
}
install_client() {
    [ -n "${GRASP_MIRROR_TOOLS:-}" ] || install_tool ngit "$NGIT_VERSION" ngit
}

# What the tests take from npm, beside the folder with the programs: nostr-tools, a second implementation of direct
# messages; playwright-core and axe-core, which drive and check the dashboard. From the lock file, without running
# anybody's install scripts.
install_node_packages() {
    [ -z "${GRASP_MIRROR_TOOLS:-}" ] || return 0
    local to="$TOOLS_ROOT/node" lock=testkit/node/package-lock.json
    command -v node >/dev/null && command -v npm >/dev/null ||
        fail "node or npm is missing; tests talk to the bot and look at its dashboard with it (Debian: apt-get install nodejs npm)"
    node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' ||
        fail "node $(node --version) is too old: nostr-tools needs 20.19 or newer"
    # npm writes the hidden file last.
    if cmp -s "$lock" "$to/package-lock.json" && [ -f "$to/node_modules/.package-lock.json" ]; then
        return
    fi
    say "Installing nostr-tools, playwright-core and axe-core into $to"
    mkdir -p "$to"
    cp testkit/node/package.json "$lock" "$to"
    (cd "$to" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) || fail "npm ci failed (see above)"
}

# The dashboard is tested in a real browser.
install_chromium() {
    has_chromium && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing Chromium"
        apt-get update -q && apt-get install -qy --no-install-recommends chromium fonts-dejavu-core || true
    fi
    has_chromium || fail "Chromium is missing; the dashboard is tested in it (or let CHROMIUM name one):
  Debian:         sudo apt-get install chromium
  Ubuntu:         sudo apt-get install chromium-browser
  Fedora, Arch:   sudo dnf install chromium, sudo pacman -S chromium"
}
has_chromium() {
    [ -n "${CHROMIUM:-}" ] || command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
        command -v google-chrome >/dev/null
}

# What most GRASP servers have in front: tests start their own, without root, on loopback.
install_nginx() {
    has_nginx && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing nginx"
        apt-get update -q && apt-get install -qy --no-install-recommends nginx-light || true
        # Debian starts it as a service, too.
        if [ -d /run/systemd/system ]; then systemctl disable --now nginx || true; fi
    fi
    has_nginx || fail "nginx is missing; servers are tested behind it:
  Debian, Ubuntu: sudo apt-get install nginx-light
  Fedora, Arch:   sudo dnf install nginx-core, sudo pacman -S nginx
  macOS:          brew install nginx"
}
has_nginx() { command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || [ -x /usr/local/sbin/nginx ]; }

TOOLS_ROOT="$PWD/target/tools"
