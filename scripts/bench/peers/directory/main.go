// SPDX-License-Identifier: MPL-2.0

// Command directory is an LDAP server for measurements: it agrees to every bind, add and
// delete, and keeps no state. Its only argument is the address to listen on.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/jimlambrt/gldap"
)

func main() {
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func serve(arguments []string) error {
	if len(arguments) != 1 {
		return errors.New("usage: directory HOST:PORT")
	}
	server, err := gldap.NewServer(gldap.WithLogger(hclog.NewNullLogger()))
	if err != nil {
		return err
	}
	routes, err := gldap.NewMux()
	if err != nil {
		return err
	}
	err = errors.Join(
		routes.Bind(func(w *gldap.ResponseWriter, r *gldap.Request) {
			_ = w.Write(r.NewBindResponse(gldap.WithResponseCode(gldap.ResultSuccess))) // fails only if the client has gone
		}),
		routes.Add(succeed(gldap.ApplicationAddResponse)),
		routes.Delete(succeed(gldap.ApplicationDelResponse)),
		server.Router(routes),
	)
	if err != nil {
		return err
	}
	return server.Run(arguments[0])
}

// succeed answers an operation with success.
func succeed(response int) gldap.HandlerFunc {
	return func(w *gldap.ResponseWriter, r *gldap.Request) {
		_ = w.Write(r.NewResponse(gldap.WithApplicationCode(response), gldap.WithResponseCode(gldap.ResultSuccess)))
	}
}
