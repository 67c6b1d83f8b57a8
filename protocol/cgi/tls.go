package cgi

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"

	"gatecrew/protocol"
)

// appendTLS adds the variables of Apache's mod_ssl, which is where applications
// learned to look.
//
// Of a client certificate that no configured authority vouches for, only the
// certificate itself is given, with SSL_CLIENT_VERIFY=GENEROUS: a name that
// anyone can write into a certificate must not reach an application that looks
// at the name alone.
func appendTLS(dst []protocol.Param, state *tls.ConnectionState) []protocol.Param {
	dst = append(dst,
		protocol.Param{Name: "HTTPS", Value: "on"},
		protocol.Param{Name: "SSL_PROTOCOL", Value: tlsVersion(state.Version)},
		protocol.Param{Name: "SSL_CIPHER", Value: tlsCipher(state.CipherSuite)},
	)
	if len(state.PeerCertificates) == 0 {
		return dst
	}
	cert := state.PeerCertificates[0]
	verify := "GENEROUS"
	if len(state.VerifiedChains) > 0 {
		verify = "SUCCESS"
		dst = append(dst,
			protocol.Param{Name: "SSL_CLIENT_S_DN", Value: cert.Subject.String()},
			protocol.Param{Name: "SSL_CLIENT_I_DN", Value: cert.Issuer.String()},
			protocol.Param{Name: "SSL_CLIENT_M_SERIAL", Value: fmt.Sprintf("%X", cert.SerialNumber)},
		)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	return append(dst,
		protocol.Param{Name: "SSL_CLIENT_VERIFY", Value: verify},
		protocol.Param{Name: "SSL_CLIENT_CERT", Value: string(block)},
	)
}

func tlsVersion(v uint16) string {
	switch v {
	case tls.VersionTLS10:
		return "TLSv1"
	case tls.VersionTLS11:
		return "TLSv1.1"
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return tls.VersionName(v)
}

// opensslCiphers has OpenSSL's names, which mod_ssl shows, where they differ
// from the IANA names that crypto/tls uses: those of TLS 1.2 and before.
var opensslCiphers = map[uint16]string{
	tls.TLS_RSA_WITH_RC4_128_SHA:                      "RC4-SHA",
	tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA:                 "DES-CBC3-SHA",
	tls.TLS_RSA_WITH_AES_128_CBC_SHA:                  "AES128-SHA",
	tls.TLS_RSA_WITH_AES_256_CBC_SHA:                  "AES256-SHA",
	tls.TLS_RSA_WITH_AES_128_CBC_SHA256:               "AES128-SHA256",
	tls.TLS_RSA_WITH_AES_128_GCM_SHA256:               "AES128-GCM-SHA256",
	tls.TLS_RSA_WITH_AES_256_GCM_SHA384:               "AES256-GCM-SHA384",
	tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA:              "ECDHE-ECDSA-RC4-SHA",
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA:          "ECDHE-ECDSA-AES128-SHA",
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA:          "ECDHE-ECDSA-AES256-SHA",
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256:       "ECDHE-ECDSA-AES128-SHA256",
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:       "ECDHE-ECDSA-AES128-GCM-SHA256",
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:       "ECDHE-ECDSA-AES256-GCM-SHA384",
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: "ECDHE-ECDSA-CHACHA20-POLY1305",
	tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA:                "ECDHE-RSA-RC4-SHA",
	tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA:           "ECDHE-RSA-DES-CBC3-SHA",
	tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA:            "ECDHE-RSA-AES128-SHA",
	tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA:            "ECDHE-RSA-AES256-SHA",
	tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256:         "ECDHE-RSA-AES128-SHA256",
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:         "ECDHE-RSA-AES128-GCM-SHA256",
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:         "ECDHE-RSA-AES256-GCM-SHA384",
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:   "ECDHE-RSA-CHACHA20-POLY1305",
}

func tlsCipher(id uint16) string {
	if name, ok := opensslCiphers[id]; ok {
		return name
	}
	return tls.CipherSuiteName(id)
}
