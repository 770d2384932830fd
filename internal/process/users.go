package process

import (
	"bytes"
	"strconv"
	"time"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

const (
	maxPasswd   = 1 << 20 // bytes of /etc/passwd; of a longer one no name is known
	maxUserName = 64      // bytes
	// usersFor is how long the names are used before the file is read again.
	usersFor = time.Minute
)

// users are the names in /etc/passwd. Other sources of names, such as LDAP, can hang, and are not asked.
type users struct {
	path   string
	names  map[uint32]string
	readAt time.Time
}

// name returns the name of a user, or "".
func (u *users) name(uid uint32) string {
	if u.names == nil || time.Since(u.readAt) >= usersFor {
		text, _ := safeopen.ReadFileUpTo(u.path, maxPasswd)
		u.names, u.readAt = parsePasswd(text), time.Now()
	}
	return u.names[uid]
}

// parsePasswd reads passwd(5). The first name of a user counts, as in getpwuid(3).
func parsePasswd(text []byte) map[uint32]string {
	names := make(map[uint32]string)
	for line := range bytes.Lines(text) {
		fields := bytes.SplitN(line, []byte{':'}, 4)
		if len(fields) < 4 || len(fields[0]) == 0 || len(fields[0]) > maxUserName || bytes.ContainsAny(fields[0][:1], "#+-") {
			continue
		}
		uid, err := strconv.ParseUint(string(fields[2]), 10, 32)
		if _, known := names[uint32(uid)]; err == nil && !known {
			names[uint32(uid)] = string(fields[0])
		}
	}
	return names
}
