package tcp

import (
	"strings"
	"testing"
)

// States print the kernel's names, and unknown numbers as STATE_n.
func TestState_String(t *testing.T) {
	for number, want := range map[State]string{
		1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 6: "TIME_WAIT",
		7: "CLOSE", 8: "CLOSE_WAIT", 9: "LAST_ACK", 10: "LISTEN", 11: "CLOSING", 12: "NEW_SYN_RECV",
		13: "BOUND_INACTIVE", 0: "STATE_0", 14: "STATE_14", 17: "STATE_17", 255: "STATE_255",
	} {
		if got := number.String(); got != want {
			t.Errorf("state %d prints %q, want %q", uint8(number), got, want)
		}
	}
}

// ParseState finds every state in each usual spelling, and nothing else.
func TestState_Parse(t *testing.T) {
	all := States()
	if len(all) != 13 {
		t.Fatalf("%d states have names, want 13: %v", len(all), all)
	}
	for _, s := range all {
		for _, name := range []string{s.String(), strings.ToLower(s.String()), strings.ReplaceAll(s.String(), "_", "-")} {
			if got, ok := ParseState(name); !ok || got != s {
				t.Errorf("ParseState(%q) = %v, %v", name, got, ok)
			}
		}
	}
	for name, want := range map[string]State{
		"FIN-WAIT-1": FinWait1, "fin_wait_2": FinWait2, "syn-received": SynRecv, "Closed": Close, "ESTAB": Established, "listening": Listen,
	} {
		if got, ok := ParseState(name); !ok || got != want {
			t.Errorf("ParseState(%q) = %v, %v", name, got, ok)
		}
	}
	for _, name := range []string{"", "-", "STATE_17", "FIN_WAIT", "CLOSING2"} {
		if s, ok := ParseState(name); ok {
			t.Errorf("ParseState(%q) found %v, want nothing", name, s)
		}
	}
}

// Roles, pid sources and errors print their names, and unknown numbers survive.
func TestRole_ErrnoAndSourceNames(t *testing.T) {
	for _, r := range []Role{RoleClient, RoleServer, RoleListener} {
		if got, ok := ParseRole(r.String()); !ok || got != r {
			t.Errorf("ParseRole(%q) = %v, %v", r.String(), got, ok)
		}
	}
	for value, want := range map[interface{ String() string }]string{
		RoleUnknown: "", Role(9): "ROLE_9", PIDTask: "task", PIDUnknown: "", PIDSource(77): "PID_SOURCE_77",
		Errno(104): "ECONNRESET", Errno(110): "ETIMEDOUT", Errno(99999): "ERRNO_99999",
	} {
		if got := value.String(); got != want {
			t.Errorf("%#v prints %q, want %q", value, got, want)
		}
	}
	if _, ok := ParseRole(""); ok {
		t.Error(`ParseRole("") found a role`)
	}
}

// A comm ends at its first NUL, and may fill all of its bytes.
func TestComm_Bytes(t *testing.T) {
	for name, want := range map[string]string{"": "", "curl\x00left": "curl", "0123456789abcdef": "0123456789abcdef"} {
		var c Comm
		copy(c[:], name)
		if got := string(c.Bytes()); got != want {
			t.Errorf("comm %q reads as %q, want %q", name, got, want)
		}
	}
}
