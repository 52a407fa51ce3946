#!/bin/sh
# edgeml's installer on the device: POSIX sh and the tools that busybox has.
#
#   sh device.sh HOME OWNER LEASE_S VERB [ARGUMENT...]
#
# The workstation decides, this script does; every verb can be done again. It answers in lines `key:value`;
# the last is `ok:` (exit code 0) or `error:REASON:text` (exit code 1).
#
# Whatever is killed, and whenever the power goes, `current` leads to a release that was hashed whole:
# all that others read appears by rename(2), with a sync before and after it, and models/NAME/deploy.state
# says what is about to happen before it does. `settle` is the whole recovery.

set -u
umask 022
LC_ALL=C
export LC_ALL
newline='
'

for tool in chmod cp dd df grep id ln ls mkdir mv readlink rm sed sha256sum sleep sync tr uname; do
    command -v "$tool" >/dev/null 2>&1 || eval "$tool() { busybox $tool \"\$@\"; }"
done

home=$1
owner=$2
lease_s=$3
verb=$4
shift 4

# --- words

say() {
    printf '%s:%s\n' "$1" "$2"
}

fail() { # REASON TEXT
    printf 'error:%s:%s\n' "$1" "${2%%"$newline"*}"
    exit 1
}

try() { # COMMAND...: do it, or fail with the reason
    trouble=$("$@" 2>&1 >/dev/null) && return 0
    measure_disk
    case $trouble in
    *"No space left"* | *uota\ exceeded*) fail disk_full "the disk is full: $trouble" ;;
    *"Read-only file system"*) fail read_only "$trouble" ;;
    esac
    [ "$free_kib" -ge 8 ] || fail disk_full "the disk is full: $trouble"
    fail io_error "${trouble:-$1 failed}"
}

is_number() {
    case $1 in '' | *[!0-9]*) return 1 ;; esac
}

measure_disk() { # of the nearest folder that is there: free_kib, total_kib
    place=$home
    while [ ! -d "$place" ] && [ "$place" != / ]; do
        place=${place%/*}
        place=${place:-/}
    done
    columns='\([0-9][0-9]*\)  *[0-9][0-9]*  *\([0-9][0-9]*\)  *[0-9][0-9]*%'
    # shellcheck disable=SC2046 # two numbers
    set -- $(df -P -k "$place" 2>/dev/null | sed -n "s/.* $columns.*/\\1 \\2/p")
    total_kib=${1:-0}
    free_kib=${2:-0}
}

hash_of() { # FILE: its sha256 in hex as $hash
    hash=
    [ -f "$1" ] || return 1
    if [ "$hasher" = openssl ]; then
        hash=$(openssl dgst -sha256 <"$1" 2>/dev/null) || return 1
        hash=${hash##* }
    else
        hash=$(sha256sum <"$1" 2>/dev/null) || return 1
        hash=${hash%% *}
    fi
    [ ${#hash} = 64 ]
}

choose_hasher() {
    hasher=sha256sum
    if sha256sum </dev/null >/dev/null 2>&1; then
        return
    fi
    command -v openssl >/dev/null 2>&1 || fail io_error "needs sha256sum, busybox or openssl"
    hasher=openssl
}

# --- one call at a time, one deploy at a time, and no agent

read_uptime() {
    boot=none uptime_s=0
    [ ! -r /proc/sys/kernel/random/boot_id ] || read -r boot </proc/sys/kernel/random/boot_id
    [ ! -r /proc/uptime ] || read -r uptime_s rest </proc/uptime
    uptime_s=${uptime_s%%.*}
}

serialise() { # waits until no other call of this script works in this home
    waited_s=0
    if command -v flock >/dev/null 2>&1; then
        try touch_file "$home/install/busy"
        exec 9>>"$home/install/busy"
        until flock -n 9; do
            wait_a_second
        done
        return
    fi
    mine=$home/install/busy.$$
    busy=$home/install/busy.lock
    while :; do
        try write_line "$mine" "$$ $boot"
        if ln "$mine" "$busy" 2>/dev/null; then
            break
        fi
        holder= since=
        # shellcheck disable=SC2162 # two words
        [ ! -f "$busy" ] || read holder since <"$busy"
        if [ "$since" = "$boot" ] && grep -qF "$script" "/proc/$holder/cmdline" 2>/dev/null; then
            wait_a_second
            continue
        fi
        # left behind by one that was killed; if two find it, the second one's line stays
        try mv -f "$mine" "$busy"
        sleep 1
        read -r line <"$busy"
        [ "$line" != "$$ $boot" ] || break
    done
    trap 'rm -f "$busy" "$mine"' EXIT
}

wait_a_second() {
    waited_s=$((waited_s + 1))
    [ "$waited_s" -le 60 ] || fail busy "another call works in $home for a minute"
    sleep 1
}

touch_file() {
    printf '' >>"$1"
}

write_line() { # FILE TEXT
    printf '%s\n' "$2" >"$1"
}

read_lease() {
    lease_owner= lease_who= lease_boot= lease_until=0 forced=
    [ -f "$home/install/lease" ] || return 0
    while IFS='=' read -r key value; do
        case $key in
        owner) lease_owner=$value ;;
        who) lease_who=$value ;;
        boot) lease_boot=$value ;;
        until) lease_until=$value ;;
        forced) forced=$value ;;
        esac
    done <"$home/install/lease"
    is_number "$lease_until" || lease_until=0
}

write_lease() {
    printf 'owner=%s\nwho=%s\nboot=%s\nuntil=%s\nforced=%s\n' "$owner" "$lease_who" "$boot" \
        "$((uptime_s + lease_s))" "$forced" >"$home/install/.lease" &&
        mv -f "$home/install/.lease" "$home/install/lease"
}

refuse_agent() {
    [ -z "$forced" ] || return 0
    [ ! -e "$home/identity.json" ] ||
        fail busy "an agent is enrolled in $home: let the server roll out, or use --force"
    if command -v flock >/dev/null 2>&1; then
        try touch_file "$home/agent.lock"
        exec 8>>"$home/agent.lock"
        flock -n 8 || fail busy "an agent runs in $home: stop it, or use --force"
    elif [ -e "$home/agent.lock" ]; then
        fail busy "an agent may run in $home (agent.lock is there): remove it, or use --force"
    fi
}

enter() { # before anything is changed
    try mkdir -p "$home/install" "$home/blobs/sha256" "$home/models"
    choose_hasher
    read_uptime
    serialise
    read_lease
}

own() { # before anything is changed in a deploy
    enter
    [ "$lease_owner" = "$owner" ] ||
        fail busy "${lease_who:-nobody} has taken this home over: the deploy that this call belongs to is void"
    refuse_agent
    # a full disk must not keep a release from being rolled back; the lease only ends earlier
    write_lease 2>/dev/null || rm -f "$home/install/.lease"
}

do_lock() { # WHO FORCED TAKEN: TAKEN is the owner whose lease may be taken though it has not ended
    enter
    if [ -n "$lease_owner" ] && [ "$lease_owner" != "$owner" ] && [ "$lease_owner" != "$3" ] &&
        [ "$lease_boot" = "$boot" ] && [ "$lease_until" -gt "$uptime_s" ]; then
        say owner "$lease_owner"
        say seconds "$((lease_until - uptime_s))"
        fail busy "$lease_who deploys here"
    fi
    lease_who=$1
    forced=$2
    refuse_agent
    try write_lease
}

do_lease() { # only: the next step takes LEASE_S
    own
}

do_unlock() {
    enter
    hand_over
    [ "$lease_owner" != "$owner" ] || try rm -f "$home/install/lease"
}

hand_over() { # what root made in a home that is another's: an agent of that user's could not start, or write
    [ "$(id -u)" = 0 ] || return 0
    # shellcheck disable=SC2012,SC2046 # numbers, and no name with blanks before them
    set -- $(ls -ldn "$home")
    [ "$3" = 0 ] || chown -R -h "$3:$4" "$home/models" "$home/blobs" "$home/agent.lock" 2>/dev/null || :
}

# --- one model

open_model() { # NAME
    name=$1
    case $name in '' | .* | *[!A-Za-z0-9._-]*) fail manifest "$name cannot be a model's name" ;; esac
    model=$home/models/$name
}

read_link() { # current | previous: the release that it leads to as $leads; nothing if to none
    leads=$(readlink "$model/$1" 2>/dev/null) || leads=
    case $leads in
    releases/* | */releases/*) leads=${leads##*/} ;;
    *) leads= ;;
    esac
    is_number "$leads" || leads=
}

point() { # current | previous, to what: one rename(2), as the link is moved into a folder
    try mkdir -p "$model/.link"
    try rm -rf "$model/.link/$1"
    try ln -s "$2" "$model/.link/$1"
    sync
    try mv -f "$model/.link/$1" "$model"
    sync
}

point_previous() { # RELEASE or nothing
    if [ -n "$1" ]; then
        point previous "releases/$1"
    else
        try rm -f "$model/previous"
    fi
}

whole() { # RELEASE: are all files there, with their hashes?
    damaged=installed.json
    [ -s "$model/releases/$1/installed.json" ] || return 1
    damaged="the list of its files"
    [ -s "$model/deploy/$1.sha256" ] || return 1
    while IFS= read -r line; do
        damaged=${line#*  }
        hash_of "$model/releases/$1/$damaged" || return 1
        [ "$hash" = "${line%% *}" ] || return 1
    done <"$model/deploy/$1.sha256"
    damaged=
}

load() {
    state=IDLE release='' back='' older='' starts=0 result='' reason='' ended=''
    [ -f "$model/deploy.state" ] || return 0
    while IFS='=' read -r key value; do
        case $key in
        state) state=$value ;;
        release) release=$value ;;
        back) back=$value ;;
        older) older=$value ;;
        starts) starts=$value ;;
        result) result=$value ;;
        reason) reason=$value ;;
        end) ended=yes ;;
        esac
    done <"$model/deploy.state"
    case $ended$release$back$older$starts in
    yes*[!0-9]* | [!y]* | '') state=unreadable starts=0 ;;
    esac
}

write_state() {
    printf 'state=%s\nrelease=%s\nback=%s\nolder=%s\nstarts=%s\nresult=%s\nreason=%s\nend=1\n' \
        "$state" "$release" "$back" "$older" "$starts" "$result" "$reason" >"$model/.deploy.state" &&
        sync && mv -f "$model/.deploy.state" "$model/deploy.state" && sync
}

save() { # STATE
    state=$1
    try write_state
}

settle() { # after a kill or a power cut: see docs/reference/fleet.md
    load
    sweep
    read_link current
    case $state in
    SWITCHING)
        if [ "$leads" = "$release" ]; then
            save PROBATION
        elif [ "$leads" = "$back" ]; then
            point_previous "$older"
            save STAGED
        else
            go_back
        fi
        ;;
    PROBATION) [ "$leads" = "$release" ] || go_back ;;
    ROLLING_BACK) go_back ;;
    unreadable) find_ground ;;
    esac
}

sweep() {
    rm -rf "$model/.link" "$model/.deploy.state" "$model"/releases/.*.new "$model"/releases/.*.gone
}

go_back() {
    # on a full disk this is what lets the state be written
    rm -f "$home/install/reserve" "$home"/blobs/sha256/*.part
    [ "$state" = ROLLING_BACK ] || save ROLLING_BACK
    if [ -z "$back" ]; then
        try rm -f "$model/current"
        sync
    elif whole "$back"; then
        read_link current
        [ "$leads" = "$back" ] || point current "releases/$back"
    else
        reason=hash result=FAILED_UNABLE_TO_ROLLBACK
        last_resort
        save QUARANTINED
    fi
    point_previous "$older"
}

last_resort() {
    if [ -f "$model/factory/manifest.json" ]; then
        point current factory
    else
        try rm -f "$model/current"
        sync
    fi
}

find_ground() { # the state cannot be read: what was committed counts
    read_link current
    here=$leads
    read_link previous
    release='' back='' older='' result=FAILED_ROLLBACK_COMPLETE reason=unreadable_state
    if [ -n "$here" ] && [ -e "$model/releases/$here.committed" ] && whole "$here"; then
        release=$here
    elif [ -n "$leads" ] && whole "$leads"; then
        release=$leads
        point current "releases/$leads"
    else
        last_resort
    fi
    save FAILED
}

say_model() {
    load
    say model "$name"
    read_link current
    say running "$leads"
    if [ -n "$leads" ]; then
        say variants "$(tr -d ' \n' <"$model/releases/$leads/installed.json" 2>/dev/null |
            sed -n 's/.*"variants":\[\([^]]*\)\].*/\1/p' | tr -d '"')"
        say manifest "$(sed -n 's/  manifest\.json$//p' "$model/deploy/$leads.sha256" 2>/dev/null)"
    fi
    read_link previous
    say previous "$leads"
    say state "$state"
    say release "$release"
    say back "$back"
    say starts "$starts"
    say result "$result"
    say reason "$reason"
}

do_status() { # [NAME]
    for model in "$home"/models/*/; do
        model=${model%/}
        name=${model##*/}
        [ -d "$model" ] && [ "${1:-$name}" = "$name" ] || continue
        say_model
    done
}

do_recover() { # all models, deploys that nobody will go on with excepted
    enter
    for model in "$home"/models/*/; do
        [ -f "$model/deploy.state" ] || continue
        model=${model%/}
        name=${model##*/}
        settle
        say_model
    done
}

do_begin() { # NAME RELEASE
    own
    open_model "$1"
    try mkdir -p "$model/releases" "$model/deploy"
    settle
    case $state in
    PROBATION | ROLLING_BACK) ;; # to be ended first, by who asks
    *)
        [ -f "$home/install/reserve" ] ||
            try dd if=/dev/zero of="$home/install/reserve" bs=1024 count=64
        read_link current
        release=$2 back=$leads older='' starts=0 result='' reason=''
        save FETCHING
        ;;
    esac
    say_model
}

do_missing() { # HASH...: those that are not here, or damaged; how much room there is
    own
    for wanted; do
        blob=$home/blobs/sha256/$wanted
        if hash_of "$blob" && [ "$hash" = "$wanted" ]; then
            continue
        fi
        # a damaged one would be linked again and again
        try rm -f "$blob"
        say missing "$wanted"
    done
    measure_disk
    say free_kib "$free_kib"
    # where links fail, a release takes its room twice
    probe=$home/install/probe
    rm -f "$probe" "$home/blobs/probe"
    try touch_file "$probe"
    if ln "$probe" "$home/blobs/probe" 2>/dev/null; then say links yes; else say links no; fi
    rm -f "$probe" "$home/blobs/probe"
}

do_accept() { # HASH: what came as HASH.part
    own
    blob=$home/blobs/sha256/$1
    if [ ! -e "$blob.part" ] && hash_of "$blob" && [ "$hash" = "$1" ]; then
        return
    fi
    hash_of "$blob.part" || fail io_error "$blob.part did not arrive"
    if [ "$hash" != "$1" ]; then
        try rm -f "$blob.part"
        fail hash "what arrived as $1 has the sha256 $hash"
    fi
    try chmod 0444 "$blob.part"
    sync
    try mv -f "$blob.part" "$blob"
}

place() { # HASH FILE
    blob=$home/blobs/sha256/$1
    hash_of "$blob" || fail hash "$blob is not there"
    if [ "$hash" != "$1" ]; then
        try rm -f "$blob"
        fail hash "$blob is damaged; run deploy again"
    fi
    ln "$blob" "$2" 2>/dev/null || try cp "$blob" "$2"
}

do_stage() { # NAME RELEASE: a folder of what deploy/.RELEASE.sha256 lists, and deploy/.RELEASE.json
    own
    open_model "$1"
    settle
    list=$model/deploy/$2.sha256
    folder=$model/releases/$2
    hash_of "$model/deploy/.$2.sha256" || fail io_error "the list of files did not arrive"
    wanted=$hash
    if [ -d "$folder" ] && hash_of "$list" && [ "$hash" = "$wanted" ]; then
        mend "$2"
    else
        read_link current
        [ "$leads" != "$2" ] ||
            fail manifest "release $2 runs here with other files or another variant; a change needs a higher number"
        build "$2"
    fi
    whole "$2" || fail hash "$damaged of release $2 is damaged; run deploy again"
    save STAGED
}

mend() { # RELEASE: replace damaged files one by one, under the feet of whoever runs them
    while IFS= read -r line; do
        path=${line#*  }
        if hash_of "$folder/$path" && [ "$hash" = "${line%% *}" ]; then
            continue
        fi
        try rm -f "$model/deploy/.mend"
        place "${line%% *}" "$model/deploy/.mend"
        sync
        try mkdir -p "$(dir_of "$folder/$path")"
        try mv -f "$model/deploy/.mend" "$folder/$path"
    done <"$list"
    [ -s "$folder/installed.json" ] || try mv -f "$model/deploy/.$1.json" "$folder/installed.json"
    sync
}

build() { # RELEASE
    new=$model/releases/.$1.new
    try mkdir -p "$new"
    while IFS= read -r line; do
        path=${line#*  }
        case /$path/ in //* | */../*) fail manifest "$path leaves the release's folder" ;; esac
        try mkdir -p "$(dir_of "$new/$path")"
        place "${line%% *}" "$new/$path"
    done <"$model/deploy/.$1.sha256"
    try mv -f "$model/deploy/.$1.json" "$new/installed.json"
    sync
    discard "$1"
    try mv -f "$model/deploy/.$1.sha256" "$list"
    try mv "$new" "$folder"
    sync
}

dir_of() {
    printf '%s' "${1%/*}"
}

discard() { # RELEASE
    try rm -f "$model/releases/$1.committed"
    if [ -e "$model/releases/$1" ]; then
        # one rename, so that half a release never has a release's name
        try mv "$model/releases/$1" "$model/releases/.$1.gone"
        try rm -rf "$model/releases/.$1.gone"
    fi
    try rm -f "$model/deploy/$1.sha256"
}

do_describe() { # NAME RELEASE: deploy/.RELEASE.json becomes installed.json
    own
    open_model "$1"
    settle
    sync
    try mv -f "$model/deploy/.$2.json" "$model/releases/$2/installed.json"
    sync
}

do_adopt() { # NAME RELEASE: deploy/.RELEASE.sha256 lists what another installer has put there
    own
    open_model "$1"
    settle
    try mv -f "$model/deploy/.$2.sha256" "$model/deploy/$2.sha256"
    sync
}

do_verify() { # NAME RELEASE
    choose_hasher
    open_model "$1"
    whole "$2" || fail hash "$damaged of release $2 is missing or damaged"
}

do_switch() { # NAME RELEASE
    own
    open_model "$1"
    settle
    if [ "$state" = PROBATION ] && [ "$release" = "$2" ]; then
        starts=$((starts + 1))
        save PROBATION
    else
        case $state in PROBATION | ROLLING_BACK) fail io_error "release $release of $name is $state here" ;; esac
        whole "$2" || fail hash "$damaged of release $2 is missing or damaged"
        read_link previous
        older=$leads
        read_link current
        release=$2 back=$leads starts=1 result='' reason=''
        save SWITCHING
        [ -z "$back" ] || [ "$back" = "$2" ] || point_previous "$back"
        point current "releases/$2"
        save PROBATION
    fi
    say starts "$starts"
}

do_rollback() { # NAME REASON
    own
    open_model "$1"
    settle
    case $state in
    PROBATION)
        reason=$2
        go_back
        ;;
    ROLLING_BACK) ;;
    *) fail io_error "$name is $state here: nothing to roll back" ;;
    esac
    say_model
}

do_end() { # NAME STATE RESULT REASON
    own
    open_model "$1"
    settle
    case $2 in
    COMMITTED)
        read_link current
        [ "$state" = PROBATION ] && [ "$leads" = "$release" ] || fail io_error "$name is $state here, not PROBATION"
        try touch_file "$model/releases/$release.committed"
        sync
        ;;
    FAILED | QUARANTINED)
        [ "$state" != PROBATION ] || fail io_error "$name is in PROBATION: roll it back first"
        ;;
    *) fail io_error "$2 is no end" ;;
    esac
    result=$3 reason=$4
    [ "$2" != QUARANTINED ] || last_resort
    save "$2"
    collect
    say_model
}

collect() { # releases and blobs that nobody needs
    read_link current
    keep=" $leads "
    read_link previous
    keep="$keep$leads "
    for place in "$model"/releases/*/; do
        place=${place%/}
        case $keep in *" ${place##*/} "*) continue ;; esac
        is_number "${place##*/}" && discard "${place##*/}"
    done
    rm -f "$model"/deploy/.[!.]*
    for blob in "$home"/blobs/sha256/*; do
        # one name: no release has it
        # shellcheck disable=SC2046 # the second word is the number of names
        set -- $(ls -ld "$blob" 2>/dev/null)
        [ "${2:-0}" != 1 ] || try rm -f "$blob"
    done
    for file in "$home"/install/device-*.sh "$home"/install/busy.[0-9]*; do
        [ "$file" = "$script" ] || [ "$file" = "${mine:-}" ] || rm -f "$file"
    done
}

# --- what this device is

do_facts() {
    say machine "$(uname -m)"
    say system "$(uname -s) $(uname -r)"
    say uid "$(id -u)"
    [ ! -r /proc/device-tree/model ] || say board "$(tr -d '\0' </proc/device-tree/model)"
    [ ! -r /etc/os-release ] || say distribution "$(sed -n 's/^PRETTY_NAME=//p' /etc/os-release | tr -d '"')"
    [ ! -r /proc/meminfo ] || say memory_kib "$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)"
    [ ! -r /proc/cpuinfo ] || sed 's/^/cpuinfo:/' /proc/cpuinfo
    say cores "$(nproc 2>/dev/null || grep -c '^processor' /proc/cpuinfo 2>/dev/null)"
    for place in "$(command -v edgeml)" /opt/edgeml/bin/edgeml "${HOME:-/}/.local/share/edgeml/venv/bin/edgeml"; do
        if [ -x "$place" ]; then
            say edgeml "$place"
            break
        fi
    done
    [ ! -d /run/systemd/system ] || say systemd yes
    measure_disk
    say free_kib "$free_kib"
    say total_kib "$total_kib"
}

case $home in /*) ;; *) fail io_error "$home is not an absolute path" ;; esac
script=$0
case $verb in
facts | status | recover | lock | lease | unlock | begin | missing | accept | stage | describe | adopt | verify | switch | rollback | end)
    "do_$verb" "$@"
    ;;
*) fail io_error "no verb $verb" ;;
esac
say ok ''
