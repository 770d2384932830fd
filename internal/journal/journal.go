// Package journal turns a line of NDJSON into an entry for systemd's journal, in the bytes of its native
// protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/). It must not send them, and it keeps no
// state.
package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"

	"github.com/tcpshift/tcpshift/internal/record"
)

// Socket is where journald receives entries, each in one datagram.
const Socket = "/run/systemd/journal/socket"

// prefix begins the names of the fields that have the members of a record.
const prefix = "TCPSHIFT_"

// The priorities of syslog(3).
const (
	priorityCritical = "2"
	priorityWarning  = "4"
	priorityNotice   = "5"
	priorityInfo     = "6"
)

// errNotObject is the error of a line that is no JSON object.
var errNotObject = errors.New("the line is not a JSON object")

// member is a member of a record: a string without its quotes and printable, or JSON.
type member struct {
	key   string
	value []byte
}

type entry []member

// AppendEntry appends a record of the native schema as an entry: a sentence in MESSAGE, PRIORITY,
// SYSLOG_IDENTIFIER, and for each member a field whose name is TCPSHIFT_ and the member's in capital
// letters. It leaves out a field whose name journald would refuse. Strings have escapes for what is not
// printable, see [record.Printable]: journalctl shows a terminal what it finds, with --output=cat or
// --field also controls. It returns dst and an error if line is not a JSON object.
func AppendEntry(dst, line []byte) ([]byte, error) {
	e, err := parse(line)
	if err != nil {
		return dst, err
	}
	dst = appendField(dst, "MESSAGE", []byte(e.message()))
	dst = appendField(dst, "PRIORITY", []byte(e.priority()))
	dst = appendField(dst, "SYSLOG_IDENTIFIER", []byte("tcpshift"))
	for _, m := range e {
		if name := fieldName(m.key); name != "" {
			dst = appendField(dst, name, m.value)
		}
	}
	return dst, nil
}

// parse returns the members in their order.
func parse(line []byte) (e entry, err error) {
	d := json.NewDecoder(bytes.NewReader(line))
	if begin, err := d.Token(); err != nil || begin != json.Delim('{') {
		return nil, errNotObject
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, errNotObject
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, errNotObject
		}
		m := member{key.(string), value}
		if value[0] == '"' {
			var text string
			if err := json.Unmarshal(value, &text); err != nil {
				return nil, errNotObject
			}
			m.value = []byte(record.Printable(text))
		}
		e = append(e, m)
	}
	if _, err := d.Token(); err != nil {
		return nil, errNotObject
	}
	return e, nil
}

// fieldName is the name of a member's field. It is empty if journald would refuse it: a name has at most 64
// capital letters, digits and underscores.
func fieldName(key string) string {
	name := prefix + strings.ToUpper(key)
	if len(name) > 64 {
		return ""
	}
	for i := range len(name) {
		if c := name[i]; (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return ""
		}
	}
	return name
}

// appendField appends a field. One whose value has a newline has its length in place of the '='.
func appendField(dst []byte, name string, value []byte) []byte {
	dst = append(dst, name...)
	if bytes.IndexByte(value, '\n') < 0 {
		dst = append(append(dst, '='), value...)
	} else {
		dst = binary.LittleEndian.AppendUint64(append(dst, '\n'), uint64(len(value)))
		dst = append(dst, value...)
	}
	return append(dst, '\n')
}

// get returns the value of a member; "": there is none.
func (e entry) get(key string) string {
	for _, m := range e {
		if m.key == key {
			return string(m.value)
		}
	}
	return ""
}

func (e entry) priority() string {
	switch e.get("type") {
	case "alert":
		switch {
		case e.get("phase") == "close":
			return priorityNotice
		case e.get("severity") == "critical":
			return priorityCritical
		}
		return priorityWarning
	case "loss":
		return priorityWarning
	case "start", "reload", "stop":
		return priorityNotice
	}
	return priorityInfo
}

// message is what journalctl shows of a record.
func (e entry) message() string {
	switch kind := e.get("type"); kind {
	case "alert":
		return words("alert", e.get("phase")+":", e.get("kind")+":", e.get("cause"))
	case "transition":
		return words(e.get("old_state"), "->", e.get("new_state"), e.endpoints(), e.process(), e.get("error"))
	case "connection":
		if e.get("phase") == "update" {
			return words("connection lives in", e.get("state"), e.endpoints(), e.process())
		}
		return words("connection ended in", e.get("final_state"), e.endpoints(), e.process(), e.get("closed_by"), e.get("error"))
	case "loss":
		lost := "transitions:"
		if e.get("cause") == "rejected" {
			lost = "records:"
		}
		return words("lost", e.get("lost"), lost, e.get("cause"))
	case "stats":
		return words("stats: seen", e.get("seen")+", read", e.get("read")+", written", e.get("written"))
	case "start":
		return words("tcpshift", e.get("version"), "traces", e.get("host"))
	case "reload":
		return words("reloaded:", e.get("changed"))
	case "stop":
		return words("stopped:", e.get("reason"), e.get("signal"))
	default:
		return words(kind, e.endpoints(), e.process())
	}
}

func (e entry) endpoints() string {
	return words(endpoint(e.get("local_addr"), e.get("local_port")), endpoint(e.get("peer_addr"), e.get("peer_port")))
}

func endpoint(addr, port string) string {
	if strings.Contains(addr, ":") {
		addr = "[" + addr + "]"
	}
	if port == "" {
		return addr
	}
	return addr + ":" + port
}

// process is COMM[PID].
func (e entry) process() string {
	if pid := e.get("pid"); pid != "" {
		return e.get("comm") + "[" + pid + "]"
	}
	return ""
}

// words joins the parts that are not empty.
func words(parts ...string) string {
	var kept []string
	for _, part := range parts {
		if part != "" {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, " ")
}
