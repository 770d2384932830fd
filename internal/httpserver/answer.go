package httpserver

import (
	"bytes"
	"maps"
	"net/http"
)

// InMemory makes the answers of a handler in memory, at most atATime of them, and then passes them on. So a
// client that does not read its answer does not keep those of others from being made.
func InMemory(handler http.Handler, atATime int) http.Handler {
	places := make(chan struct{}, atATime)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		a := answer{header: make(http.Header), status: http.StatusOK}
		func() {
			defer func() { <-places }()
			handler.ServeHTTP(&a, r)
		}()
		maps.Copy(w.Header(), a.header)
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body.Bytes()) // a client that is gone needs none
	})
}

// answer is an answer in memory. It implements [http.ResponseWriter].
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements [http.ResponseWriter].
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements [http.ResponseWriter].
func (a *answer) WriteHeader(status int) { a.status = status }

// Write implements [http.ResponseWriter].
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
