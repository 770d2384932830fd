package limits

import (
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// listsBound reports whether sock_diag lists the sockets that are bound and not connected: since
// Linux 6.8 (commit 91051f003948). Nothing but the version shows it. An unknown version counts as
// an old one.
var listsBound = sync.OnceValue(func() bool {
	release, _ := uname()
	return isAtLeast(release, 6, 8)
})

// isAtLeast reports whether a release such as 6.8.0-31-generic is of this version or a later one.
func isAtLeast(release string, major, minor int) bool {
	var hasMajor, hasMinor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &hasMajor, &hasMinor); n < 2 {
		return false
	}
	return hasMajor > major || hasMajor == major && hasMinor >= minor
}

// reusesFinWait2 reports whether connect() takes over timewait sockets in FIN_WAIT2 as those in
// TIME_WAIT, by tcp_twsk_unique(). Nothing but the version shows it.
var reusesFinWait2 = sync.OnceValue(func() bool {
	release, version := uname()
	signature, _ := safeopen.ReadFile("/proc/version_signature") // of Ubuntu
	return versionReusesFinWait2(upstream(release, version, string(signature)))
})

// sparesFinWait2 has the first stable releases with commit 0d9e5df4a257 of Linux 6.12 ("tcp: avoid
// reusing FIN_WAIT2 when trying to find port in connect() process"): by major and minor number.
var sparesFinWait2 = map[[2]int]int{{4, 19}: 323, {5, 4}: 285, {5, 10}: 227, {5, 15}: 168, {6, 1}: 113, {6, 6}: 55, {6, 10}: 14, {6, 11}: 3}

// versionReusesFinWait2 is reusesFinWait2 of a version such as 6.1.119. A kernel counts as one
// without the commit unless its version shows the commit. If that is wrong, the alert about such
// sockets comes with the first connect() that fails, and not before. The opposite error would make
// a false alert.
func versionReusesFinWait2(version string) bool {
	if isAtLeast(version, 6, 12) {
		return false
	}
	var major, minor, patch int
	if n, _ := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch); n < 3 {
		return true
	}
	first, known := sparesFinWait2[[2]int{major, minor}]
	return !known || patch < first
}

// upstream is the version of the upstream kernel, if the distribution shows it; the release of a
// distribution's kernel has a number of its own. Debian has the version in `uname -v`, as "#1 SMP Debian
// 6.1.119-1 (2024-11-22)", and Ubuntu in /proc/version_signature, as "Ubuntu 5.15.0-125.135-generic
// 5.15.167".
func upstream(release, version, signature string) string {
	if _, debian, found := strings.Cut(version, "Debian "); found {
		return debian
	}
	if fields := strings.Fields(signature); len(fields) == 3 {
		return fields[2]
	}
	return release
}

// uname returns what uname -r and uname -v print, "" on failure.
func uname() (release, version string) {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "", ""
	}
	return unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Version[:])
}
