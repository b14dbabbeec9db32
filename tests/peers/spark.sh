#!/usr/bin/env bash
# Installs Apache Spark for Python into .cache/peers/spark, and, where there is no Java 17 or newer,
# Debian's Java, unpacked without root, into .cache/peers/java. `spark.sh java` prints JAVA_HOME for it;
# nothing where the system's own Java will do.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/venv.sh"
HOME_DIR=$PEERS/java

# The version of a Java, as a number: 17.
version_of() { "$1" -version 2>&1 | sed -n '1s/.* version "\([0-9]*\).*/\1/p'; }

new_enough() {
    local version
    version=$(version_of "$1" 2>/dev/null) && ((${version:-0} >= 17))
}

# Debian's, if it was unpacked.
unpacked() { find "$HOME_DIR/usr/lib/jvm" -maxdepth 1 -type d -name 'java-*-openjdk-*' 2>/dev/null | head -n 1; }

if [[ ${1:-} == java ]]; then
    new_enough java || unpacked
    exit
fi
make_venv spark
if new_enough java || { [[ -n $(unpacked) ]] && new_enough "$(unpacked)/bin/java"; }; then
    say "java: there already"
    exit
fi

mkdir -p "$HOME_DIR"
cd "$HOME_DIR"
for package in openjdk-17-jre-headless openjdk-21-jre-headless; do
    say "java: unpacking Debian's $package (half a minute) ..."
    if apt-get download -qq "$package" 2>/dev/null ||
        { ((EUID == 0)) && apt-get update -qq && apt-get download -qq "$package" 2>/dev/null; }; then
        break
    fi
done
if ! compgen -G '*.deb' >/dev/null; then
    echo "Java is missing. Run this once:  sudo apt-get install -y openjdk-17-jre-headless" >&2
    exit 1
fi
for package in *.deb; do dpkg -x "$package" .; done
rm -f -- *.deb
# The package's settings are links to /etc, where nothing was put.
find "$(unpacked)" -type l -lname '/etc/java-*' | while read -r link; do
    ln -sfn "$HOME_DIR$(readlink "$link")" "$link"
done
"$(unpacked)/bin/java" -version 2>&1 | sed -n '1s/^/    /p'
