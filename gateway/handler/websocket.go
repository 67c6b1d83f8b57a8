package handler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"

	"go.uber.org/zap"

	"gatecrew/gateway/accesslog"
	"gatecrew/gateway/site"
	"gatecrew/gateway/websocket"
	"gatecrew/protocol"
	"gatecrew/protocol/cgi"
)

// errNoConnect answers an extended CONNECT (RFC 8441) that nothing here takes;
// on HTTP/1.1 the same client's request for an upgrade would be a plain GET.
var errNoConnect = &failure{status: http.StatusNotImplemented, text: "Nothing here takes such a connection."}

// socket has the route's application take a WebSocket connection. The
// application is asked first: it may refuse, with any answer of HTTP, and only
// once it has accepted the client is.
func (h *Handler) socket(x *exchange, r *http.Request, route *site.Route, target *cgi.Target) error {
	hello, err := route.WebSocket.Check(r)
	if err != nil {
		return err
	}
	if r.ProtoMajor == 1 {
		// What the client sends behind its handshake are frames, and no other
		// request. Accept forgets this field, the refusals keep it.
		x.Header().Set("Connection", "close")
	}
	asked := *r // an application sees the method of HTTP/1.1, whatever the protocol
	asked.Method, asked.ContentLength = http.MethodGet, 0
	req := h.request(x, &asked, target)
	req.Role = protocol.WebSocket

	// The context of an upgraded connection's request ends with the handler,
	// and the application's exchange has to outlive that.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	leave := context.AfterFunc(r.Context(), cancel)
	a, err := h.answer(ctx, x, route, req, &body{}, nil)
	if err != nil {
		cancel()
		return err
	}
	if a.head.Status != http.StatusSwitchingProtocols {
		defer cancel()
		defer a.Close()
		a.head.LocalRedirect = "" // the client is redirected instead
		_, err := h.respond(x, &asked, route, a)
		return err
	}
	header, ok := hello.Accept(a.head.Header)
	app, isSocket := a.Exchange.(protocol.Socket)
	if !ok || !isSocket {
		cause := fmt.Errorf("the application chose the subprotocol %q, which the client has not offered", a.head.Header["Sec-Websocket-Protocol"])
		if ok {
			cause = errors.New("status 101 from an application that takes no WebSocket connections")
		}
		a.Close()
		cancel()
		return &failure{status: http.StatusInternalServerError, text: "The application's answer could not be understood.", cause: cause}
	}
	if r.ProtoMajor == 1 && !leave() {
		a.Close()
		cancel()
		return &protocol.Error{Kind: protocol.ClientGone, Err: context.Cause(r.Context())}
	}
	begun := bytes.Clone(a.begun.bytes())
	a.begun.free()
	w := x.ResponseWriter
	x.detach()
	x.entry.Status = http.StatusSwitchingProtocols
	h.Sockets.Serve(w, r, header, websocket.Config{Options: route.WebSocket, Handshake: hello, App: app,
		Begun: begun, Err: a.err, Ended: func(result websocket.Result) {
			cancel()
			h.released(result.Conn)
			x.entry.Bytes = result.Sent
			x.record()
			h.logSocket(&x.entry, result)
		}})
	return nil
}

// logSocket tells the log how a connection ended.
func (h *Handler) logSocket(e *accesslog.Entry, result websocket.Result) {
	level, what := zap.DebugLevel, "WebSocket connection closed"
	if result.Err != nil && !result.Client && protocol.KindOf(result.Err) != 0 && protocol.KindOf(result.Err) != protocol.ClientGone {
		level, what = zap.ErrorLevel, "the application of a WebSocket connection failed"
	}
	if check := h.Log.Check(level, what); check != nil {
		check.Write(zap.String("request", e.RequestID), zap.String("uri", e.URI), zap.String("route", e.Route),
			zap.String("upstream", e.Upstream), zap.Uint16("code", result.Code), zap.String("reason", result.Reason),
			zap.Bool("by_client", result.Client), zap.Duration("after", e.Duration), zap.Error(result.Err))
	}
}

// refusalOf is the failure for a handshake that no application is asked about.
func refusalOf(err error) *failure {
	var refused *websocket.Refusal
	if !errors.As(err, &refused) {
		return nil
	}
	return &failure{status: refused.Status, text: refused.Reason, closing: true, cause: err}
}
