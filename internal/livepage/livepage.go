// Package livepage answers HTTP requests for the page of a trace that runs. It gives what it shows only to clients with the
// token, and refuses requests for other hosts: a page of another site must not reach it through a browser. It must not know
// what the page shows, make the loop wait, or log a request.
package livepage

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// The paths of the page and of what it shows, and the header with the token. The browser sends no token by itself, as it
// would send a cookie, also to other ports of the host.
const (
	ContentPath = "content"
	TokenHeader = "Tcpshift-Token"
)

const (
	// maxPages bounds the answers that are made at a time.
	maxPages = 2
	// paceShare is how many times as long as it takes to make the content the next one is not made.
	paceShare = 10
	// leastPace is the least time between two of them: the page asks each second.
	leastPace = 500 * time.Millisecond
)

// Token lengths in bytes.
const (
	minToken, maxToken = 20, 200
	randomBytes        = 32
)

// NewToken returns a random token.
func NewToken() string {
	b := make([]byte, randomBytes)
	_, _ = rand.Read(b) // it never fails, since Go 1.24
	return base64.RawURLEncoding.EncodeToString(b)
}

// CheckToken refuses a token that can be guessed, or that an address cannot have in its fragment. Errors do not contain it.
func CheckToken(token string) error {
	if len(token) < minToken || len(token) > maxToken {
		return fmt.Errorf("the token has %d characters: use %d to %d, such as those of 'openssl rand -hex 32'", len(token), minToken, maxToken)
	}
	for _, c := range token {
		if !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~", c) {
			return errors.New("the token has other characters than letters, digits and -._~")
		}
	}
	return nil
}

// Page is what the handler shows.
type Page struct {
	Shell   []byte                  // the page itself, which has nothing of the trace
	Policy  string                  // the Content-Security-Policy of Shell
	Content func(w io.Writer) error // writes what Shell asks for; an error means that there is nothing yet
}

// Handler answers requests for p to clients that have the token.
func Handler(p Page, token string) http.Handler {
	paced := &pacedContent{write: p.Content}
	want := sha256.Sum256([]byte(token))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", p.Policy)
		_, _ = w.Write(p.Shell) // a client that is gone needs none
	})
	places := make(chan struct{}, maxPages)
	mux.HandleFunc("GET /"+ContentPath, func(w http.ResponseWriter, r *http.Request) {
		given := sha256.Sum256([]byte(r.Header.Get(TokenHeader)))
		if subtle.ConstantTimeCompare(given[:], want[:]) != 1 {
			http.Error(w, "the token is missing or wrong", http.StatusUnauthorized)
			return
		}
		select {
		case places <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		content, err := func() ([]byte, error) {
			defer func() { <-places }()
			return paced.get(time.Now())
		}()
		if err != nil {
			http.Error(w, "there is nothing yet", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(content)
	})
	return guarded(mux)
}

// guarded sets the headers of all answers, and refuses requests for other hosts.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !isOwnHost(r.Host) {
			http.Error(w, "use an address or localhost in the URL, not another name", http.StatusMisdirectedRequest)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isOwnHost reports whether a Host header has an address, or localhost. A site whose name is made to mean this host (DNS
// rebinding) is the origin of its own page, which has its name there. The port may be another one: that of a tunnel.
func isOwnHost(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	_, err = netip.ParseAddr(name)
	return err == nil || strings.EqualFold(name, "localhost")
}

// pacedContent makes the content for all clients, and not more often than its cost permits.
type pacedContent struct {
	write func(w io.Writer) error

	mu      sync.Mutex
	next    time.Time
	content []byte // must not be changed
	err     error
}

func (p *pacedContent) get(now time.Time) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Before(p.next) {
		return p.content, p.err
	}
	var b bytes.Buffer
	p.err = p.write(&b)
	p.content = b.Bytes()
	p.next = now.Add(max(leastPace, paceShare*time.Since(now)))
	return p.content, p.err
}
