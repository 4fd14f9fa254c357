// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/rogpeppe/go-internal/testscript"
)

// idTokens is an identity provider that exists for a moment: it makes a key, writes its
// public half, and signs the claims in each file, for five minutes.
func idTokens(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: id-tokens PUBLIC_KEY_FILE CLAIMS_FILES")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	if err := os.WriteFile(ts.MkAbs(args[0]), block, 0o600); err != nil {
		return err
	}
	for _, file := range args[1:] {
		var claims jwt.MapClaims
		if err := json.Unmarshal([]byte(ts.ReadFile(file)), &claims); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		claims["iat"], claims["exp"] = time.Now().Unix(), time.Now().Add(5*time.Minute).Unix()
		token, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(key)
		if err != nil {
			return err
		}
		if err := os.WriteFile(ts.MkAbs(strings.TrimSuffix(file, ".json")+".jwt"), []byte(token), 0o600); err != nil {
			return err
		}
	}
	return nil
}
