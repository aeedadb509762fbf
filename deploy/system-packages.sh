#!/bin/sh
# Install the Debian/Ubuntu packages that a part of asd-edge needs, where they are missing.
# usage: system-packages.sh [python] [sound] [broker] [nats] [rabbitmq] [network] [microphone] [units] [box] [arm64] [image] [fleet] [series] [compiler] [browser]
set -eu

missing=""
need() { # need PACKAGE TEST...: remember PACKAGE unless TEST succeeds
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
has_library() { ldconfig -p | grep -q "$1"; }
has_file() { ls $1; }

for part in "$@"; do
    case $part in
    python) need python3-venv python3 -c 'import ensurepip, venv' ;;
    sound) need libportaudio2 has_library libportaudio.so.2 ;;
    broker)
        need mosquitto has_file /usr/sbin/mosquitto
        need mosquitto-clients command -v mosquitto_pub
        need openssl command -v openssl
        ;;
    nats) need nats-server has_file /usr/sbin/nats-server ;;
    rabbitmq) need rabbitmq-server has_file /usr/sbin/rabbitmq-server ;;
    network) need iproute2 command -v ip ;;
    microphone)
        need pulseaudio command -v pulseaudio
        need pulseaudio-utils command -v pactl
        need libasound2-plugins has_file '/usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so'
        need libportaudio2 has_library libportaudio.so.2
        ;;
    fleet)
        need prometheus command -v promtool
        need prometheus-alertmanager command -v amtool
        need prometheus-mqtt-exporter command -v prometheus-mqtt-exporter
        need victoria-metrics command -v victoria-metrics
        ;;
    series) need influxdb command -v influxd ;;
    units) need systemd command -v systemd-analyze ;;
    box) # a small Debian with systemd in a container
        need debootstrap command -v debootstrap
        need systemd-container command -v systemd-nspawn
        ;;
    arm64) # a small Debian for arm64 under qemu-user
        need debootstrap command -v debootstrap
        need qemu-user-static command -v qemu-aarch64-static
        ;;
    image) # the container image without a registry
        need buildah command -v buildah
        need debootstrap command -v debootstrap
        need systemd-container command -v systemd-nspawn
        ;;
    compiler)
        need g++ command -v g++
        need python3-dev python3 -c 'import os, sysconfig; os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))'
        ;;
    browser) need chromium command -v chromium ;;
    *)
        echo "system-packages.sh: no part named $part" >&2
        exit 2
        ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    sudo=""
elif command -v sudo >/dev/null; then
    sudo="sudo"
else
    sudo=""
fi
if ! command -v apt-get >/dev/null || { [ "$(id -u)" != 0 ] && [ -z "$sudo" ]; }; then
    echo "error: please install:$missing" >&2
    exit 1
fi
echo "installing$missing"
$sudo apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
