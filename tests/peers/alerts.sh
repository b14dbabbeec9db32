#!/usr/bin/env bash
# Installs what alerts are sent to in tests: a real mail server (aiosmtpd) into .cache/peers/alerts, and
# Prometheus' Alertmanager, Debian's package unpacked without root, into .cache/peers/alertmanager.
# `alerts.sh bin` prints the path of Alertmanager.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/venv.sh"
HOME_DIR=$PEERS/alertmanager
BIN=$HOME_DIR/usr/bin/prometheus-alertmanager

if [[ ${1:-} == bin ]]; then
    command -v prometheus-alertmanager || { [[ -x $BIN ]] && echo "$BIN"; } || true
    exit
fi
make_venv alerts
if command -v prometheus-alertmanager >/dev/null || [[ -x $BIN ]]; then
    say "alertmanager: there already"
    exit
fi

say "alertmanager: unpacking Debian's prometheus-alertmanager (half a minute) ..."
mkdir -p "$HOME_DIR"
cd "$HOME_DIR"
if ! apt-get download -qq prometheus-alertmanager 2>/dev/null; then
    if ((EUID != 0)) || ! apt-get update -qq || ! apt-get download -qq prometheus-alertmanager; then
        echo "Alertmanager is missing. Run this once:  sudo apt-get install -y prometheus-alertmanager" >&2
        exit 1
    fi
fi
dpkg -x prometheus-alertmanager_*.deb .
rm -f prometheus-alertmanager_*.deb
# Debian's binary looks for its templates below /usr. The unpacked one shall find them below the folder
# that it runs in: a relative path of the same length takes the absolute one's place.
share=/usr/share/prometheus/alertmanager
[[ -f .$share/default.tmpl ]] || { echo "the package has no $share/default.tmpl" >&2; exit 1; }
sed -i "s|$share|usr/share/prometheus//alertmanager|g" "$BIN"
"$BIN" --version 2>&1 | sed -n '1s/^/    /p'
