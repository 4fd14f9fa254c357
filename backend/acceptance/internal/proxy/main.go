// SPDX-License-Identifier: MPL-2.0

// Command proxy is a forward proxy for tests. It alone knows where certain names lead,
// and it prints a line for everything that it is asked for, such as
//
//	CONNECT graph.simulator.test:443
//
// With -intercept it opens the TLS of its clients, as companies do who want to see
// what their machines send: a client then has to trust its authority.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const dialTimeout = 5 * time.Second

func main() {
	log.SetFlags(0)
	log.SetOutput(os.Stdout)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	p := &proxy{addresses: map[string]string{}}
	dir := flag.String("dir", "", "`directory` for proxy.json, and for ca.pem if TLS is opened")
	upstream := flag.String("intercept", "", "open TLS; `file` with the authority of the servers behind, as PEM")
	flag.Func("lead", "`host=address`: where a name leads, whatever the port", func(v string) error {
		host, address, ok := strings.Cut(v, "=")
		if !ok {
			return errors.New("host=address is needed")
		}
		p.addresses[host] = address
		return nil
	})
	flag.Parse()
	if *upstream != "" {
		var err error
		if p.interceptor, err = newInterceptor(*upstream); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(*dir, "ca.pem"), p.interceptor.authorityPEM(), 0o600); err != nil {
			return err
		}
	}
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	log.Printf("listening on %s", ln.Addr())
	if err := publish(*dir, "http://"+ln.Addr().String()); err != nil {
		return err
	}
	server := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	return server.Serve(ln)
}

// publish writes the URL at once, so that nobody finds half of it.
func publish(dir, url string) error {
	text, err := json.Marshal(map[string]string{"url": url})
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "proxy.json")
	return errors.Join(os.WriteFile(file+".new", text, 0o600), os.Rename(file+".new", file))
}

// proxy makes tunnels and nothing else.
type proxy struct {
	addresses   map[string]string // by host name
	interceptor *interceptor      // or nil
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	log.Printf("%s %s", r.Method, r.Host) //nolint:gosec // net/http has checked both
	host, _, err := net.SplitHostPort(r.Host)
	address := p.addresses[host]
	if err != nil || r.Method != http.MethodConnect || address == "" {
		http.Error(w, "this proxy makes tunnels to a few hosts only", http.StatusForbidden)
		return
	}
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		log.Print(err)
		return
	}
	defer func() { _ = client.Close() }()
	if err := p.tunnel(r.Context(), client, host, address); err != nil {
		log.Printf("tunnel to %s: %v", host, err) //nolint:gosec // one of the flags' names
	}
}

// tunnel connects a client with an address, until one of them ends.
func (p *proxy) tunnel(ctx context.Context, client net.Conn, host, address string) error {
	server, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = server.Close() }()
	if _, err := fmt.Fprint(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return err
	}
	if p.interceptor == nil {
		join(client, server)
		return nil
	}
	open, sealed, err := p.interceptor.open(ctx, client, server, host)
	if err != nil {
		return err
	}
	join(open, sealed)
	return nil
}

// join copies both ways. The end of one is the end of both.
func join(a, b net.Conn) {
	var ways sync.WaitGroup
	forward := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // how a tunnel ends is up to its users
		_, _ = to.Close(), from.Close()
	}
	ways.Go(func() { forward(a, b) })
	ways.Go(func() { forward(b, a) })
	ways.Wait()
}
