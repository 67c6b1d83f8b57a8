package cgi

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

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
	resumed := "Initial"
	if state.DidResume {
		resumed = "Resumed"
	}
	dst = append(dst,
		protocol.Param{Name: "HTTPS", Value: "on"},
		protocol.Param{Name: "SSL_PROTOCOL", Value: tlsVersion(state.Version)},
		protocol.Param{Name: "SSL_CIPHER", Value: tlsCipher(state.CipherSuite)},
		protocol.Param{Name: "SSL_SESSION_RESUMED", Value: resumed},
	)
	// The client chose it, and crypto/tls takes any bytes.
	if validName(state.ServerName) {
		dst = append(dst, protocol.Param{Name: "SSL_TLS_SNI", Value: state.ServerName})
	}
	if len(state.PeerCertificates) == 0 {
		return append(dst, protocol.Param{Name: "SSL_CLIENT_VERIFY", Value: "NONE"})
	}
	cert := state.PeerCertificates[0]
	verify := "GENEROUS"
	if len(state.VerifiedChains) > 0 {
		verify = "SUCCESS"
		dst = appendCertificate(dst, cert)
	}
	dst = append(dst,
		protocol.Param{Name: "SSL_CLIENT_VERIFY", Value: verify},
		protocol.Param{Name: "SSL_CLIENT_CERT", Value: toPEM(cert)},
	)
	for i, c := range state.PeerCertificates[1:] {
		dst = append(dst, protocol.Param{Name: "SSL_CLIENT_CERT_CHAIN_" + strconv.Itoa(i), Value: toPEM(c)})
	}
	return dst
}

// appendCertificate adds what a client's certificate says.
func appendCertificate(dst []protocol.Param, cert *x509.Certificate) []protocol.Param {
	fingerprint := sha256.Sum256(cert.Raw)
	dst = append(dst,
		protocol.Param{Name: "SSL_CLIENT_M_VERSION", Value: strconv.Itoa(cert.Version)},
		protocol.Param{Name: "SSL_CLIENT_M_SERIAL", Value: fmt.Sprintf("%X", cert.SerialNumber)},
		protocol.Param{Name: "SSL_CLIENT_V_START", Value: opensslTime(cert.NotBefore)},
		protocol.Param{Name: "SSL_CLIENT_V_END", Value: opensslTime(cert.NotAfter)},
		// Of the whole certificate, in hexadecimal; mod_ssl has none.
		protocol.Param{Name: "SSL_CLIENT_FINGERPRINT_SHA256", Value: hex.EncodeToString(fingerprint[:])},
	)
	dst = appendName(dst, "SSL_CLIENT_S_DN", &cert.Subject)
	dst = appendName(dst, "SSL_CLIENT_I_DN", &cert.Issuer)
	dst = appendNumbered(dst, "SSL_CLIENT_SAN_DNS_", cert.DNSNames)
	return appendNumbered(dst, "SSL_CLIENT_SAN_Email_", cert.EmailAddresses)
}

// attributes are mod_ssl's suffixes for the parts of a distinguished name.
var attributes = map[string]string{
	"2.5.4.3": "CN", "2.5.4.4": "S", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O",
	"2.5.4.11": "OU", "2.5.4.12": "T", "2.5.4.13": "D", "2.5.4.42": "G", "2.5.4.43": "I",
	"0.9.2342.19200300.100.1.1": "UID", "1.2.840.113549.1.9.1": "Email",
}

// appendName adds a distinguished name (RFC 2253) and its parts. Of a part that
// it has several times only the first is given by itself.
func appendName(dst []protocol.Param, variable string, name *pkix.Name) []protocol.Param {
	dst = append(dst, protocol.Param{Name: variable, Value: printable(name.String())})
	start := len(dst)
	for _, a := range name.Names {
		suffix, known := attributes[a.Type.String()]
		value, text := a.Value.(string)
		full := variable + "_" + suffix
		if known && text && !slices.ContainsFunc(dst[start:], func(p protocol.Param) bool { return p.Name == full }) {
			dst = append(dst, protocol.Param{Name: full, Value: printable(value)})
		}
	}
	return dst
}

func appendNumbered(dst []protocol.Param, prefix string, values []string) []protocol.Param {
	for i, v := range values {
		dst = append(dst, protocol.Param{Name: prefix + strconv.Itoa(i), Value: printable(v)})
	}
	return dst
}

// printable replaces the control characters of a value: an authority may have
// signed them, and NUL would end the variable.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

func toPEM(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// opensslTime writes a time like OpenSSL's ASN1_TIME_print.
func opensslTime(t time.Time) string { return t.UTC().Format("Jan _2 15:04:05 2006 GMT") }

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
