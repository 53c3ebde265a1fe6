#!/bin/bash
# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
#
# Build the provider oracle.  usage: build.sh OUTDIR
# Needs: gcc, libnl-3-dev, libnl-route-3-dev, and apt sources that name bookworm.
# Downloads Debian packages with isolated apt lists under OUTDIR; the system's
# own apt state is not touched. The archive is the one this system already uses.
set -euo pipefail

[[ $# -eq 1 ]] || { echo "usage: $0 OUTDIR" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
old=44.0-2 new=65.0-1.1
apt=$out/apt deb=$out/deb
triplet=x86_64-linux-gnu

for t in gcc apt-get dpkg-deb; do
  command -v "$t" >/dev/null || { echo "build.sh: $t is missing" >&2; exit 1; }
done
[[ -e /usr/include/libnl3/netlink/netlink.h ]] ||
  { echo "build.sh: apt-get install libnl-3-dev libnl-route-3-dev" >&2; exit 1; }

if [[ ! -e $out/.fetched ]]; then
  # shellcheck disable=SC2016  # apt expands the format
  archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
  [[ -n $archive ]] || { echo "build.sh: no bookworm archive in the apt sources (run apt-get update)" >&2; exit 1; }
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  mkdir -p "$apt"/{lists/partial,cache/archives/partial} "$deb"
  for suite in bookworm forky sid; do
    printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$archive" "$suite"
  done >"$apt/sources.list"
  opts=(-qq "-oDir::Etc::SourceList=$apt/sources.list" -oDir::Etc::SourceParts=/dev/null
        "-oDir::State::Lists=$apt/lists" "-oDir::Cache=$apt/cache" -oAPT::Sandbox::User=root)
  apt-get "${opts[@]}" update
  (cd "$deb" && rm -f ./*.deb &&
    apt-get "${opts[@]}" download "libibverbs-dev=$old" "libibverbs-dev=$new" linux-libc-dev/sid)
  for v in "$old" "$new"; do
    rm -rf "$out/rdma-core-$v"
    dpkg-deb -x "$deb"/libibverbs-dev_"$v"_amd64.deb "$out/rdma-core-$v"
  done
  # Only the RDMA user ABI headers of the newest linux-libc-dev (ionic-abi.h).
  rm -rf "$out/linux" "$out/abi"
  dpkg-deb -x "$deb"/linux-libc-dev_*.deb "$out/linux"
  mkdir -p "$out/abi"
  cp -r "$out/linux/usr/include/rdma" "$out/abi/"
  (cd "$deb" && sha256sum ./*.deb) >"$out/packages.sha256"
  rm -rf "$apt" "$out/linux"
  touch "$out/.fetched"
fi

# build VERSION REGISTER_SYMBOL BINARY PROVIDER_LIB... -- DEFINE...
build() {
  local root=$out/rdma-core-$1 register=$2 bin=$3 libs=()
  shift 3
  while [[ $1 != -- ]]; do libs+=("$root/usr/lib/$triplet/$1"); shift; done
  shift
  gcc -std=gnu11 -O2 -g -Wall -Wextra -Wno-unused-parameter "$@" \
    -DRDMA_CORE_VERSION="\"$(basename "$root" | cut -d- -f3-)\"" -DREGISTER_DRIVER="$register" \
    -I"$out/abi" -I"$root/usr/include" -I"$here" \
    "$here"/{oracle,fake_kernel,compat_isoc23}.c -o "$bin" \
    -Wl,--wrap=open,--wrap=stat,--wrap=ioctl,--wrap=mmap,--wrap=write,--wrap=nl_socket_alloc \
    -Wl,--start-group "${libs[@]}" "$root/usr/lib/$triplet/libibverbs.a" -Wl,--end-group \
    -lnl-route-3 -lnl-3 -lpthread -ldl
}
build "$old" rdmacore44_0_verbs_register_driver_34 "$out/oracle-44" \
  libmlx5.a libbnxt_re-rdmav34.a --
build "$new" rdmacore65_0_verbs_register_driver_65 "$out/oracle-65" \
  libmlx5.a libbnxt_re-rdmav65.a libionic.a -- -DBNXT_HAS_SLOTS -DHAVE_IONIC
ln -sf oracle-65 "$out/oracle"
ls -l "$out"/oracle*
