# Makes of an unpacked Debian ($1) what a guest boots, in the folder $2: kernel, initrd, disk. Run by guest.rs, as root.
set -eu
root=$1 out=$2
mkdir "$out"
cp "$root"/boot/vmlinuz-* "$out/kernel"
modules=("$root"/lib/modules/*)

# All that is needed to find the disk.
early=$(mktemp -d)
trap 'rm -rf "$early"' EXIT
mkdir "$early"/{bin,dev,disk,modules,proc,sys}
cp "$root/bin/busybox" "$early/bin/"
for module in virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
  found=$(find "${modules[0]}" -name "$module.ko*" -print -quit)
  if [ -n "$found" ]; then cp "$found" "$early/modules/"; fi
done
cat >"$early/init" <<'INIT'
#!/bin/busybox sh
busybox=/bin/busybox
$busybox mount -t proc none /proc && $busybox mount -t sysfs none /sys && $busybox mount -t devtmpfs none /dev
# Each needs others of them first; which, is another matter from kernel to kernel.
until [ -b /dev/vda ]; do
  for module in /modules/*; do $busybox insmod "$module" 2>/dev/null; done
  $busybox sleep 0.1
done
$busybox mount -t ext4 /dev/vda /disk && $busybox umount /proc /sys && exec $busybox switch_root /disk /sbin/init
INIT
chmod +x "$early/init"
(cd "$early" && find . | "$root/bin/busybox" cpio -o -H newc 2>/dev/null | gzip -1 >"$out/initrd")

# What the test asks for: a length and a script of that length; what it gets: exit code, length, all that was printed.
cat >"$root/usr/local/sbin/asked" <<'ASKED'
#!/bin/bash
mount -o ro /dev/vdb /host
exec 3<>/dev/virtio-ports/plat
echo ready >&3
while read -r length <&3; do
  LC_ALL=C read -r -N "$length" script <&3
  (cd /root && exec bash -euc "$script") >/run/said 2>&1 3>&- </dev/null && code=0 || code=$?
  { echo "$code $(stat -c %s /run/said)"; cat /run/said; } >&3
done
ASKED
chmod +x "$root/usr/local/sbin/asked"
mkdir "$root/host"
cat >"$root/etc/systemd/system/asked.service" <<'UNIT'
[Unit]
After=multi-user.target systemd-udev-settle.service
Wants=systemd-udev-settle.service
[Service]
ExecStart=/usr/local/sbin/asked
Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# What the test starts is to be like what root starts by hand.
OOMPolicy=continue
KillMode=process
UNIT
systemd=$root/etc/systemd/system
mkdir -p "$systemd/graphical.target.wants"
ln -sf ../asked.service "$systemd/graphical.target.wants/"
for unit in serial-getty@ttyS0.service getty@tty1.service systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer; do
  ln -sf /dev/null "$systemd/$unit"
done
rm -f "$root"/etc/apt/sources.list.d/* "$root/etc/resolv.conf"
echo guest >"$root/etc/hostname"
: >"$root/etc/machine-id"
truncate -s 3G "$out/disk"
mkfs.ext4 -q -d "$root" "$out/disk"
