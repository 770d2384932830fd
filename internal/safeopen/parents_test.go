package safeopen

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A directory is reported if another user can put another one in its place, whether the path
// has links or not.
func TestReplaceableParent_WithAndWithoutLinks(t *testing.T) {
	needRoot(t)
	const nobody = 65534
	for name, tt := range map[string]struct {
		mode             os.FileMode
		uid, gid         int // of the directory above
		entryUID         int
		want             string
		throughLink      bool
		lastIsOfAnyUsers bool
	}{
		"of root":                      {mode: 0o755},
		"of another user":              {mode: 0o755, uid: nobody, want: "/in can be replaced by uid 65534, who owns "},
		"behind a link":                {mode: 0o755, uid: nobody, throughLink: true, want: "/in can be replaced by uid 65534, who owns "},
		"any user may write":           {mode: 0o777, want: "/in can be replaced by any user, who may write to "},
		"a group may write":            {mode: 0o775, gid: nobody, want: "/in can be replaced by group 65534, who may write to "},
		"root's group may write":       {mode: 0o775},
		"sticky":                       {mode: 0o777 | os.ModeSticky},
		"sticky, the entry of another": {mode: 0o777 | os.ModeSticky, entryUID: nobody, want: "/in can be replaced by uid 65534, who owns it"},
		"only the file is in danger":   {mode: 0o755, lastIsOfAnyUsers: true},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			above := filepath.Join(root, "above")
			in := filepath.Join(above, "in")
			if err := os.MkdirAll(in, 0o755); err != nil {
				t.Fatal(err)
			}
			err := os.Chown(in, tt.entryUID, 0)
			if err == nil && tt.lastIsOfAnyUsers {
				err = os.Chmod(in, 0o777)
			}
			if err == nil {
				err = os.Chown(above, tt.uid, tt.gid)
			}
			if err == nil {
				err = os.Chmod(above, tt.mode)
			}
			path := filepath.Join(in, "out")
			if tt.throughLink {
				path = filepath.Join(root, "link", "out")
				err = os.Symlink(in, filepath.Join(root, "link"))
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := ReplaceableParent(path); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
