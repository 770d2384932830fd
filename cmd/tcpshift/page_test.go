package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The token of a file is taken if only its user can read it and it cannot be guessed. No error shows it.
func TestPage_TokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	const token = "0123456789abcdef0123456789abcdef"
	for _, tt := range []struct {
		text string
		mode os.FileMode
		want string // the error; empty: none
	}{
		{token + "\n", 0o600, ""},
		{token, 0o400, ""},
		{token, 0o640, "may be read by other users (mode 0640): chmod 600 a file of your own"},
		{token, 0o604, "may be read by other users (mode 0604)"},
		{"short\n", 0o600, "the token has 5 characters: use 20 to 200"},
		{token + " " + token, 0o600, "the token has other characters"},
		{strings.Repeat(token, 200), 0o600, "the file is too large"},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		got, err := readToken(path)
		switch {
		case tt.want == "" && (err != nil || got != token):
			t.Errorf("%q, %04o: %q, %v", tt.text, tt.mode, got, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), token)):
			t.Errorf("%.40q, %04o: %v, want %s", tt.text, tt.mode, err, tt.want)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := readToken(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a file that does not exist has a token")
	}
}

// Without a host the page is on a loopback address.
func TestPage_Address(t *testing.T) {
	for text, want := range map[string]string{"9465": "127.0.0.1:9465", ":9465": "127.0.0.1:9465", "[::1]:9465": "[::1]:9465", "0.0.0.0:9465": "0.0.0.0:9465", "0": "", "x": "", "127.0.0.1": "", "": ""} {
		got, err := parsePageAddress(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
}

// Where standard error is the journal, which others may read, no token is written to it. A token needs a page.
func TestPage_Check(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "8:1234")
	for _, tt := range []struct {
		options pageOptions
		want    string
	}{
		{pageOptions{}, ""},
		{pageOptions{listen: "127.0.0.1:9465", tokenFile: "token"}, ""},
		{pageOptions{listen: "127.0.0.1:9465"}, "--http-listen: the token would be in the journal"},
		{pageOptions{tokenFile: "token"}, "--http-token-file: nothing listens"},
	} {
		err := tt.options.check()
		if (err == nil) != (tt.want == "") || err != nil && !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %s", tt.options, err, tt.want)
		}
	}
}
