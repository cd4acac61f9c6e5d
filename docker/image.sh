#!/usr/bin/env bash
# Builds both images and says how large they are: postern (the gateway) and postern-lab.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly TAG="${POSTERN_TAG:-local}"

field() {
    sed -n "s/^$1 = \"\(.*\)\"/\1/p" Cargo.toml | head -1
}

# A build outside of git, from an archive say, has no revision.
revision() {
    local revision changed=
    revision=$(git rev-parse HEAD 2>/dev/null) || revision=unknown
    git diff --quiet HEAD 2>/dev/null || changed=-changed
    printf '%s%s\n' "$revision" "$changed"
}

# BuildKit where the client can: as part of the engine until Docker 22, later as a plugin.
choose_builder() {
    local major
    major=$(docker version --format '{{.Client.Version}}' 2>/dev/null | cut -d. -f1)
    if docker buildx version >/dev/null 2>&1 || [ "${major:-99}" -lt 23 ]; then
        export DOCKER_BUILDKIT=1
    else
        export DOCKER_BUILDKIT=0
    fi
}

# Proxies as they are set here; the host's network, because that is the one that can be counted on.
build() {
    local target=$1 name=$2 proxy args=()
    for proxy in http_proxy https_proxy no_proxy; do
        [ -z "${!proxy:-}" ] || args+=(--build-arg "$proxy")
    done
    docker build --network host --file docker/Dockerfile --target "$target" --tag "$name:$TAG" \
        --build-arg "VERSION=$(field version)" \
        --build-arg "REVISION=$(revision)" \
        --build-arg "SOURCE=$(field repository)" \
        --build-arg "SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)" \
        "${args[@]}" .
}

size() {
    docker image inspect --format '{{.Size}}' "$1:$TAG" |
        awk -v name="$1:$TAG" '{ printf "%-22s %6.1f MB\n", name, $1 / 1e6 }'
}

docker info >/dev/null 2>&1 || {
    echo "image: no Docker engine answers; start one, or set DOCKER_HOST" >&2
    exit 1
}
begun=$SECONDS
docker/bases.sh
choose_builder
build gateway postern
build lab postern-lab
printf '\nbuilt in %s s\n' "$((SECONDS - begun))"
size postern
size postern-lab
