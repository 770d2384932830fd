package cgroup

import "strings"

// podUID finds the uid in the name of a pod's cgroup. Below its configured root the
// kubelet makes:
//
//	…/kubepods[/burstable|/besteffort]/podUID                    cgroupfs driver
//	…kubepods.slice/…/…kubepods[-burstable|…]-podU_I_D.slice     systemd driver
//
// Guaranteed pods have no level for their class. The slice may also be the first part
// of a container's name (see container).
func podUID(name, parent string) string {
	name, _, _ = strings.Cut(name, ":")
	name, slice := strings.CutSuffix(name, ".slice")
	at := strings.LastIndex(name, "pod") // not within the uid: its letters are a to f
	if at < 0 {
		return ""
	}
	switch before := name[:at]; {
	case slice && strings.HasSuffix(before, "-") && strings.Contains(before, "kubepods-"):
		return canonical(name[at+len("pod"):], '_')
	case !slice && before == "" && (parent == "kubepods" || parent == "burstable" || parent == "besteffort"):
		return canonical(name[at+len("pod"):], '-')
	}
	return ""
}

// canonical returns a UUID with dashes, or a hash of 32 digits as it is, or "". In the
// name of a slice a dash separates levels, so there the kubelet writes underscores.
func canonical(uid string, separator byte) string {
	if len(uid) == 32 && isHex(uid) {
		return uid
	}
	if len(uid) != 36 {
		return ""
	}
	for i := range len(uid) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash && uid[i] != separator || !dash && !isHex(uid[i:i+1]) {
			return ""
		}
	}
	return strings.ReplaceAll(uid, "_", "-")
}
