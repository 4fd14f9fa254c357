// SPDX-License-Identifier: MPL-2.0

// Command directory is an LDAP server for measurements: it agrees to every bind, add
// and delete, and remembers nothing. It listens on the address that is its only
// argument.
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
	routes, err := agreeable()
	if err != nil {
		return err
	}
	if err := server.Router(routes); err != nil {
		return err
	}
	return server.Run(arguments[0])
}

// agreeable answers each of the operations that the openldap engine performs with
// success.
func agreeable() (*gldap.Mux, error) {
	routes, err := gldap.NewMux()
	if err != nil {
		return nil, err
	}
	err = routes.Bind(func(w *gldap.ResponseWriter, r *gldap.Request) {
		_ = w.Write(r.NewBindResponse(gldap.WithResponseCode(gldap.ResultSuccess))) // the client has gone
	})
	if err != nil {
		return nil, err
	}
	err = routes.Add(func(w *gldap.ResponseWriter, r *gldap.Request) {
		_ = w.Write(r.NewResponse(
			gldap.WithApplicationCode(gldap.ApplicationAddResponse), gldap.WithResponseCode(gldap.ResultSuccess)))
	})
	if err != nil {
		return nil, err
	}
	return routes, routes.Delete(func(w *gldap.ResponseWriter, r *gldap.Request) {
		_ = w.Write(r.NewResponse(
			gldap.WithApplicationCode(gldap.ApplicationDelResponse), gldap.WithResponseCode(gldap.ResultSuccess)))
	})
}
