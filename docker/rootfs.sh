#!/bin/sh
# Collects under ROOT all that the gateway's image consists of: the program, nft, their libraries,
# and a user of its own. Runs in a stage of the Dockerfile. No shell comes in.
set -eu

root=$1
date=$2
user=65532

# Copies a program with the libraries that it is linked with to the places where it looks for them.
take() {
    cp --parents -L "$1" "$root"
    ldd "$1" | grep -o '/[^ ]*' | sort -u | while read -r library; do
        cp --parents -L "$library" "$root"
    done
}

# As in Debian: programs look below /lib, files are below /usr/lib.
for folder in bin sbin lib lib64; do
    mkdir -p "$root/usr/$folder"
    ln -s "usr/$folder" "$root/$folder"
done
take /usr/bin/postern
take /usr/sbin/nft
cp --parents /usr/share/doc/postern/LICENSE "$root"
for package in nftables libc6; do
    cp --parents "/usr/share/doc/$package/copyright" "$root" 2>/dev/null || true
done

mkdir -p "$root/etc"
cat >"$root/etc/passwd" <<PASSWD
root:x:0:0:root:/:/nonexistent
postern:x:$user:$user:Postern:/var/lib/postern:/nonexistent
PASSWD
cat >"$root/etc/group" <<GROUP
root:x:0:
postern:x:$user:
GROUP
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
for folder in etc/postern var/lib/postern run/postern; do
    install -d -m 0700 -o "$user" -g "$user" "$root/$folder"
done

# Only permitted, not effective: without NET_ADMIN the program starts all the same, and says so. It
# raises the capability itself.
find "$root" -exec touch -h -d "@$date" {} +
setcap cap_net_admin=p "$root/usr/bin/postern"
