// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

func setupTenant(flags *flag.FlagSet) control {
	var change graphtest.TenantChange
	list := func(name, usage string, into *[]string) {
		flags.Func(name, usage+", separated by commas; empty removes all", func(v string) error {
			*into = split(v)
			return nil
		})
	}
	list("roles", "`roles` of future tokens", &change.Roles)
	list("server-names", "additional `names` of the server", &change.ServerNames)
	list("customers", "`ids` of other tenants that the application is in", &change.Customers)
	list("user-identities", "client `ids` of user-assigned identities", &change.UserIdentities)
	flags.Func("shape", "`shape` of Graph's answers", func(v string) error {
		change.Shape = graphtest.Shape(v)
		return nil
	})
	flags.StringVar(&change.TokenLifetime, "token-lifetime", "", "`duration` for which future tokens are valid")
	flags.StringVar(&change.ClientSecret, "client-secret", "", "new client `secret` of the application")
	flags.BoolVar(&change.ExpireSecret, "expire-secret", false, "make the client secret expire")
	flags.IntVar(&change.StaleReads, "stale-reads", 0, "`number` of reads that still return the previous key")
	flags.StringVar(&change.Audience, "audience", "", "`root` of Graph in the tenant's cloud")
	flags.Func("certificate", "`file` with a certificate to register", func(file string) error {
		text, err := os.ReadFile(file) //nolint:gosec // naming the file is what the flag is for
		change.Certificate = string(text)
		return err
	})
	flags.StringVar(&change.ForeignSecret, "foreign-secret", "", "display `name` of a client secret to add for another client")
	flags.Func("propagation", "how a new credential spreads: sign-ins that fail before each success, "+
		"as `numbers` separated by commas; empty means at once", func(v string) (err error) {
		change.Propagation, err = numbers(v)
		return err
	})
	flags.StringVar(&change.MaxCredentialLifetime, "max-credential-lifetime", "",
		"`duration` that new credentials may be valid for; 0s means any")
	return plain(func(ctx context.Context, sim *graphtest.Client) error {
		return sim.Update(ctx, change)
	}, "changed")
}

// split never returns nil, which would mean that the flag is not set.
func split(v string) []string {
	return append([]string{}, strings.FieldsFunc(v, func(r rune) bool { return r == ',' })...)
}

func numbers(v string) ([]int, error) {
	all := []int{}
	for _, word := range split(v) {
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", word)
		}
		all = append(all, n)
	}
	return all, nil
}
