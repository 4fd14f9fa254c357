// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"context"
	"errors"
	"net/http"
	"net/url"
)

// made is the answer to a request to make something: an assertion or PEM.
type made struct {
	Text string `json:"text"`
}

func (s *Simulator) controlCredentials(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, s.Credentials())
}

func (s *Simulator) controlRemove(w http.ResponseWriter, r *http.Request) {
	if !s.RemoveInPortal(r.PathValue("id")) {
		refuse(w, http.StatusNotFound, errors.New("there is no such credential"))
		return
	}
	done(w, nil)
}

func (s *Simulator) controlAssertion(w http.ResponseWriter, r *http.Request) {
	var requested AssertionRequest
	if request(w, r, &requested) {
		text, err := s.Assertion(requested)
		replyMade(w, text, err)
	}
}

func (s *Simulator) controlCertificate(w http.ResponseWriter, r *http.Request) {
	var requested CertificateRequest
	if request(w, r, &requested) {
		text, err := s.NewCertificate(requested)
		replyMade(w, text, err)
	}
}

func replyMade(w http.ResponseWriter, text string, err error) {
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	reply(w, http.StatusOK, made{text})
}

// Credentials is [Simulator.Credentials].
func (c *Client) Credentials(ctx context.Context) ([]Credential, error) {
	var all []Credential
	err := c.control(ctx, http.MethodGet, "credentials", nil, &all)
	return all, err
}

// RemoveInPortal removes a secret or certificate, like [Simulator.RemoveInPortal]. It
// returns an error if there is none with this id.
func (c *Client) RemoveInPortal(ctx context.Context, keyID string) error {
	return c.control(ctx, http.MethodDelete, "credentials/"+url.PathEscape(keyID), nil, nil)
}

// Assertion is [Simulator.Assertion].
func (c *Client) Assertion(ctx context.Context, r AssertionRequest) (string, error) {
	var out made
	err := c.control(ctx, http.MethodPost, "assertion", r, &out)
	return out.Text, err
}

// NewCertificate is [Simulator.NewCertificate].
func (c *Client) NewCertificate(ctx context.Context, r CertificateRequest) (string, error) {
	var out made
	err := c.control(ctx, http.MethodPost, "certificate", r, &out)
	return out.Text, err
}
