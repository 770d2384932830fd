package livepage

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/httpserver"
)

const token = "a-token-of-some-length"

func newHandler(content func(w io.Writer) error) http.Handler {
	return Handler(Page{Shell: []byte("the shell"), Policy: "default-src 'self'", Content: content}, token)
}

func secret(w io.Writer) error {
	_, err := io.WriteString(w, "what happens")
	return err
}

func ask(h http.Handler, method, url string, change func(r *http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, url, nil)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func with(token string) func(r *http.Request) {
	return func(r *http.Request) { r.Header.Set(TokenHeader, token) }
}

// Only who has the token gets the content. The shell, which has nothing of the trace, is for everybody.
func TestHandler_Token(t *testing.T) {
	h := newHandler(secret)
	const content, shell = "http://127.0.0.1:9465/content", "http://127.0.0.1:9465/"
	if w := ask(h, http.MethodGet, content, with(token)); w.Code != 200 || w.Body.String() != "what happens" {
		t.Errorf("with the token: %d %s", w.Code, w.Body)
	}
	for name, change := range map[string]func(r *http.Request){
		"none": nil, "empty": with(""), "a part": with(token[:len(token)-1]), "more": with(token + "x"), "another": with(strings.ToUpper(token)),
		"as a password":  func(r *http.Request) { r.SetBasicAuth("", token) },
		"as a cookie":    func(r *http.Request) { r.AddCookie(&http.Cookie{Name: TokenHeader, Value: token}) },
		"in the address": func(r *http.Request) { r.URL.RawQuery = "token=" + token },
	} {
		if w := ask(h, http.MethodGet, content, change); w.Code != 401 || strings.Contains(w.Body.String(), "happens") || strings.Contains(w.Body.String(), token) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if w := ask(h, http.MethodGet, shell, nil); w.Code != 200 || w.Body.String() != "the shell" || w.Header().Get("Content-Security-Policy") != "default-src 'self'" {
		t.Errorf("the shell: %d %s", w.Code, w.Body)
	}
	if w := ask(h, http.MethodGet, "http://127.0.0.1/other", with(token)); w.Code != 404 {
		t.Errorf("another path: %d", w.Code)
	}
	nothing := newHandler(func(io.Writer) error { return errors.New("no records") })
	if w := ask(nothing, http.MethodGet, content, with(token)); w.Code != 503 {
		t.Errorf("without content: %d", w.Code)
	}
}

// A request must be for an address or for localhost: the name of another site, which may mean this host, is refused
// even with the token.
func TestHandler_Host(t *testing.T) {
	h := newHandler(secret)
	for host, want := range map[string]int{
		"127.0.0.1:9465": 200, "127.0.0.1": 200, "localhost:1234": 200, "LOCALHOST": 200, "[::1]:9465": 200, "[::1]": 200, "192.0.2.1:80": 200,
		"evil.example": 421, "evil.example:9465": 421, "127.0.0.1.evil.example:9465": 421, "localhost.evil.example": 421, "": 421, "127.1:9465": 421,
	} {
		for _, path := range []string{"/", "/content"} {
			w := ask(h, http.MethodGet, "http://127.0.0.1"+path, func(r *http.Request) {
				with(token)(r)
				r.Host = host
			})
			if w.Code != want {
				t.Errorf("host %q, %s: %d, want %d", host, path, w.Code, want)
			}
		}
	}
}

// Only GET and HEAD are answered.
func TestHandler_Methods(t *testing.T) {
	h := newHandler(secret)
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodPatch, http.MethodTrace, "BREW"} {
		for _, path := range []string{"/", "/content", "/other"} {
			w := ask(h, method, "http://127.0.0.1"+path, with(token))
			if w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" || w.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s %s: %d %v", method, path, w.Code, w.Header())
			}
		}
	}
	if w := ask(h, http.MethodHead, "http://127.0.0.1/content", with(token)); w.Code != 200 {
		t.Errorf("HEAD: %d", w.Code)
	}
}

// Each answer, also one that refuses, forbids other sites to show, read or keep it.
func TestHandler_Headers(t *testing.T) {
	h := newHandler(secret)
	for name, w := range map[string]*httptest.ResponseRecorder{
		"shell":   ask(h, http.MethodGet, "http://127.0.0.1/", nil),
		"content": ask(h, http.MethodGet, "http://127.0.0.1/content", with(token)),
		"refused": ask(h, http.MethodGet, "http://127.0.0.1/content", nil),
		"host":    ask(h, http.MethodGet, "http://evil.example/", nil),
		"method":  ask(h, http.MethodPost, "http://127.0.0.1/", nil),
	} {
		for header, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := w.Header().Get(header); got != want {
				t.Errorf("%s: %s is %q", name, header, got)
			}
		}
		if policy := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src") || name != "shell" && !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("%s: the policy is %q", name, policy)
		}
		if w.Header().Get("Set-Cookie") != "" {
			t.Errorf("%s sets a cookie", name)
		}
	}
}

// Clients that are idle, slow or do not read do not keep others from the page.
func TestHandler_BesideIdleClients(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	server, err := httpserver.Listen("127.0.0.1:0", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	server.Serve(newHandler(func(w io.Writer) error { _, err := io.WriteString(w, large); return err }), func(err error) { t.Error(err) })
	t.Cleanup(func() { _ = server.Close() })
	address := server.Addr().String()
	const begun = "GET /content HTTP/1.1\r\nHost: 127.0.0.1\r\n"
	for name, request := range map[string]string{"silent": "", "begun": begun, "does not read": begun + TokenHeader + ": " + token + "\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			for range httpserver.MaxConnections {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				_ = conn.(*net.TCPConn).SetReadBuffer(1)
				_, _ = conn.Write([]byte(request)) // the server may have closed it for another one
			}
			client := &http.Client{Timeout: 4 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
			status := 0
			for end := time.Now().Add(4 * time.Second); status == 0 && time.Now().Before(end); { // a request that is refused is repeated
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/content", nil)
				if err != nil {
					t.Fatal(err)
				}
				with(token)(r)
				response, err := client.Do(r)
				if err != nil {
					continue
				}
				body, err := io.ReadAll(response.Body)
				_ = response.Body.Close() // it is read
				if err == nil && len(body) == len(large) {
					status = response.StatusCode
				}
			}
			if status != 200 {
				t.Errorf("the page answers %d", status)
			}
		})
	}
}

// The content is made once for many requests, and not more often than its cost permits.
func TestHandler_PacedContent(t *testing.T) {
	made := 0
	p := &pacedContent{write: func(io.Writer) error { made++; return nil }}
	now := time.Now()
	for i := range 1000 {
		_, _ = p.get(now.Add(time.Duration(i) * time.Millisecond)) // writing does not fail
	}
	if made < 1 || made > 2 {
		t.Errorf("it is made %d times in a second", made)
	}
}

// A random token is accepted, and never the same. One that can be guessed, or that an address cannot have, is refused, in an
// error without it.
func TestToken_Strength(t *testing.T) {
	if a, b := NewToken(), NewToken(); a == b || CheckToken(a) != nil {
		t.Errorf("tokens %s, %s: %v", a, b, CheckToken(a))
	}
	for _, bad := range []string{"", "short", strings.Repeat("x", 19), strings.Repeat("x", 201), "with a space in the middle", "zwölf Boxkämpfer jagen", "a-token#of-some-length"} {
		if err := CheckToken(bad); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A panic while the content is made keeps no place: later requests are answered.
func TestHandler_Panic(t *testing.T) {
	fails := true
	h := newHandler(func(w io.Writer) error {
		if fails {
			panic("a fault")
		}
		return secret(w)
	})
	const content = "http://127.0.0.1:9465/content"
	for range maxPages + 1 {
		func() {
			defer func() { _ = recover() }() // net/http does so
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			ask(h, http.MethodGet, content, func(r *http.Request) { with(token)(r); *r = *r.WithContext(ctx) })
			t.Error("it did not panic")
		}()
	}
	fails = false
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if w := ask(h, http.MethodGet, content, func(r *http.Request) { with(token)(r); *r = *r.WithContext(ctx) }); w.Body.String() != "what happens" {
		t.Errorf("after panics: %d %q", w.Code, w.Body)
	}
}
