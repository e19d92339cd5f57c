# The real server and the real client, installed into target/tools. Sourced by scripts/test, scripts/demo and scripts/bench.
# shellcheck shell=bash

NGIT_GRASP_VERSION=3.0.9
NGIT_VERSION=3.0.3

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
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

# The tools are C at their core: a compiler, pkg-config and the OpenSSL headers.
need_c() {
    has_c && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing a C compiler, pkg-config and the OpenSSL headers"
        apt-get update -q && apt-get install -qy build-essential pkg-config libssl-dev
    fi
    has_c || fail "a C compiler, pkg-config or the OpenSSL headers are missing:
  Debian, Ubuntu: sudo apt-get install build-essential pkg-config libssl-dev
  Fedora:         sudo dnf install gcc pkgconf-pkg-config openssl-devel
  Arch:           sudo pacman -S base-devel openssl
  macOS:          xcode-select --install && brew install pkgconf openssl"
}
has_c() { command -v cc >/dev/null && command -v pkg-config >/dev/null && pkg-config --exists openssl; }

# install_tool CRATE VERSION PROGRAM: does nothing when PROGRAM already says VERSION.
install_tool() {
    local crate=$1 version=$2 program=$3
    if [[ "$("$TOOLS_ROOT/bin/$program" --version 2>/dev/null || true)" == *" $version"* ]]; then
        return
    fi
    need_c
    say "Installing $crate $version into $TOOLS_ROOT (about four minutes on two cores, once)"
    # One folder for both: an interrupted build goes on where it was, and what they share is compiled once.
    # Without their fat LTO, which is one long step on one core
    # and buys a test server nothing.
    CARGO_TARGET_DIR="$TOOLS_ROOT-build" CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install "$crate" --version "$version" --locked --force --root "$TOOLS_ROOT" ||
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

# nostr-tools, a second implementation of direct messages, beside the folder with the programs. From the lock file,
# without running anybody's install scripts.
install_nostr_tools() {
    [ -z "${GRASP_MIRROR_TOOLS:-}" ] || return 0
    local to="$TOOLS_ROOT/nostr-tools" lock=testkit/node/package-lock.json
    command -v node >/dev/null && command -v npm >/dev/null ||
        fail "node or npm is missing; a test talks to the bot with nostr-tools (Debian: apt-get install nodejs npm)"
    node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' ||
        fail "node $(node --version) is too old: nostr-tools needs 20.19 or newer"
    # npm writes the hidden file last.
    if cmp -s "$lock" "$to/package-lock.json" && [ -f "$to/node_modules/.package-lock.json" ]; then
        return
    fi
    say "Installing nostr-tools into $to"
    mkdir -p "$to"
    cp testkit/node/package.json "$lock" "$to"
    (cd "$to" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) || fail "npm ci failed (see above)"
}

TOOLS_ROOT="$PWD/target/tools"
