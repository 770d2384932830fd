package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/httpserver"
	"github.com/tcpshift/tcpshift/internal/livepage"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/report"
	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// schemePage is the scheme of the output that the live page is.
const schemePage = "page"

const (
	// pageQueueSize is how much may wait for the page to be summed up, in bytes.
	pageQueueSize = 8 << 20
	// pageMemory bounds what the page keeps, in bytes: connections that are open, and tables.
	pageMemory = 48 << 20
	// maxTokenFile bounds the file of a token, in bytes.
	maxTokenFile = 4096
)

// pageOptions are where the live page is. Without an address there is none.
type pageOptions struct {
	listen    string // HOST:PORT; empty: nowhere
	tokenFile string // path; empty: the token is random
}

func (o *pageOptions) wanted() bool { return o.listen != "" }

func addPageFlags(flags *pflag.FlagSet, o *pageOptions) {
	flags.Var(single(&o.listen, "[HOST:]PORT", parsePageAddress), "http-listen", "show what happens on a live page at this address, such as 127.0.0.1:9465; its URL, with a secret token, goes to standard error")
	flags.Var(single(&o.tokenFile, "FILE", parsePath), "http-token-file", "the token of --http-listen, in a file that only you can read; no URL is written then")
}

// parsePageAddress parses HOST:PORT, :PORT or PORT. Without a host it means 127.0.0.1.
func parsePageAddress(s string) (string, error) {
	if !strings.Contains(s, ":") {
		s = ":" + s
	}
	address, err := parseListenAddress(s)
	if err != nil {
		return "", fmt.Errorf("%q is not an address to listen on: use HOST:PORT, such as 127.0.0.1:9465", strings.TrimPrefix(s, ":"))
	}
	if strings.HasPrefix(address, ":") {
		address = "127.0.0.1" + address
	}
	return address, nil
}

// check rejects --http-token-file without --http-listen, and a token that others would read in the journal.
func (o *pageOptions) check() error {
	switch {
	case o.tokenFile != "" && o.listen == "":
		return usagef("--http-token-file: nothing listens: add --http-listen, such as --http-listen 127.0.0.1:9465")
	case o.listen != "" && o.tokenFile == "" && os.Getenv("JOURNAL_STREAM") != "":
		return usagef("--http-listen: the token would be in the journal, which others may read: add --http-token-file FILE")
	}
	return nil
}

// output is the output that the page is. It has the records of five types that pass the filters of the kernel, whatever
// the others select.
func (o *pageOptions) output() *outputValue {
	return &outputValue{
		text: "--http-listen", name: schemePage, scheme: schemePage, format: formatNDJSON, schema: record.SchemaNative,
		only: []string{"transition", "connection", "alert", "loss", "stats"}, queueSize: pageQueueSize,
	}
}

// maxKept is how many bytes the page keeps besides its queue, at most.
func (o *pageOptions) maxKept() int64 {
	if !o.wanted() {
		return 0
	}
	return pageMemory
}

// livePage is the live page of a trace. It is nil without one.
type livePage struct {
	server *httpserver.Server
	token  string
	page   livepage.Page
}

// openPage listens on the address of the page and announces it, and answers nothing yet. It returns nil without an address.
func (o *traceOptions) openPage(outs openOutputs) (*livePage, error) {
	if !o.page.wanted() {
		return nil, nil
	}
	p := &livePage{token: livepage.NewToken()}
	for _, each := range outs {
		if shown, ok := each.out.(*pageOutput); ok {
			p.page.Content = shown.live.WriteContent
		}
	}
	var shell bytes.Buffer
	policy, err := report.WriteLivePage(&shell, livepage.ContentPath, livepage.TokenHeader)
	if err != nil {
		return nil, err
	}
	p.page.Shell, p.page.Policy = shell.Bytes(), policy
	if o.page.tokenFile != "" {
		if p.token, err = readToken(o.page.tokenFile); err != nil {
			return nil, fmt.Errorf("--http-token-file: %w", err)
		}
	}
	if p.server, err = httpserver.Listen(o.page.listen, "", o.noteOwnSockets()); err != nil {
		return nil, fmt.Errorf("--http-listen: %w", err)
	}
	o.page.announce(p.server.Addr(), p.token)
	return p, nil
}

// pageOutput is the output that sums up records for the page.
type pageOutput struct {
	output.Output
	live *report.Live
}

func newPageOutput() *pageOutput {
	live := report.NewLive()
	return &pageOutput{output.Consume(live.Take), live}
}

// readToken reads the token from a file that others can neither read nor change.
func readToken(path string) (string, error) {
	text, err := safeopen.ReadSecret(path, maxTokenFile)
	if errors.Is(err, safeopen.ErrRefused) {
		return "", fmt.Errorf("%w: chmod 600 a file of your own", err)
	}
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if err := livepage.CheckToken(token); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return token, nil
}

// announce prints the URL of the page. Its host is an address, because the page refuses requests for a name. Only
// announce writes a token; it must not get the token of a file.
func (o *pageOptions) announce(at net.Addr, token string) {
	host, _, _ := net.SplitHostPort(o.listen) // it has been parsed before
	addr, err := netip.ParseAddr(host)
	if isLoopback := err == nil && addr.IsLoopback() || host == "localhost"; !isLoopback {
		warn("--http-listen: " + o.listen + " may be reached from other hosts, without TLS: who reads along gets the token; use a loopback address behind a reverse proxy or 'ssh -L'")
	}
	if o.tokenFile == "" {
		warn("the page is at http://" + at.String() + "/#token=" + token)
	}
}

// serve answers requests in the background until close. It does nothing without a page.
func (p *livePage) serve() {
	if p == nil {
		return
	}
	p.server.Serve(livepage.Handler(p.page, p.token), func(err error) { warn("--http-listen: there is no page any more: " + err.Error()) })
}

// close ends the server. It waits for no client.
func (p *livePage) close() {
	if p != nil {
		_ = p.server.Close()
	}
}
