package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

var manual = flag.String("manual", "", "write the man pages into this directory")

// pagesOfDocs are the man pages that are made of a file of docs.
var pagesOfDocs = map[string]struct{ file, section, about string }{
	"tcpshift-output": {"output.md", "7", "command line, records and exit statuses of tcpshift"},
	"tcpshift.yaml":   {"configuration.md", "5", "configuration of tcpshift"},
}

// Each command has a man page with its flags; the records and the configuration have pages made of their docs.
func TestManual_Pages(t *testing.T) {
	dir := *manual
	if dir == "" {
		dir = t.TempDir()
	}
	for _, section := range []string{"5", "7", "8"} {
		if err := os.MkdirAll(filepath.Join(dir, "man"+section), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := newRoot(nil)
	root.DisableAutoGenTag = true
	header := &doc.GenManHeader{Title: "TCPSHIFT", Section: "8", Source: "tcpshift", Manual: "System administration"}
	if err := doc.GenManTree(root, header, filepath.Join(dir, "man8")); err != nil {
		t.Fatal(err)
	}
	checkPages(t, root, filepath.Join(dir, "man8"))
	for name, page := range pagesOfDocs {
		text, err := os.ReadFile("../../docs/" + page.file)
		if err != nil {
			t.Fatal(err)
		}
		title := "% " + strings.ToUpper(name) + " " + page.section + "\n\n# NAME\n\n" + name + " - " + page.about + "\n\n"
		path := filepath.Join(dir, "man"+page.section, name+"."+page.section)
		if err := os.WriteFile(path, md2man.Render(append([]byte(title), text...)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// checkPages checks the page of a command and those of its commands.
func checkPages(t *testing.T, cmd *cobra.Command, dir string) {
	t.Helper()
	if !cmd.IsAvailableCommand() {
		return
	}
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".8"
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Error(err)
	}
	page := strings.ReplaceAll(string(text), `\-`, "-")
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(page, "--"+f.Name) {
			t.Errorf("%s has no --%s", name, f.Name)
		}
	})
	for _, each := range cmd.Commands() {
		checkPages(t, each, dir)
	}
}
