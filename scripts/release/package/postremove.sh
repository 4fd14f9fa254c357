#!/bin/sh
# Runs after a deb or rpm has been removed: "remove" or "purge" on Debian, 0 with rpm. After
# an upgrade there is nothing to do.
set -e

case $1 in
remove | purge | 0)
	rm -f "$DPKG_ROOT"/usr/lib/vault/plugins/vault-plugin-secrets-mdi_*
	rmdir "$DPKG_ROOT/usr/lib/vault/plugins" "$DPKG_ROOT/usr/lib/vault" 2>/dev/null || true
	;;
esac
