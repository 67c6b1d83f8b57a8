package websocket

import (
	_ "net/http" // is initialised before this package, and then needs the variable no more

	"gatecrew/gateway/extconnect"
)

func init() { extconnect.Restore() }
