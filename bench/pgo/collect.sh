#!/bin/sh
# Refreshes cmd/gatecrew/default.pgo: the profile that the compiler optimises
# the gateway by. Needs wrk and an idle machine.
set -eu
cd "$(dirname "$0")/../.."
scratch=$(mktemp -d)
gateway=
trap '[ -z "$gateway" ] || kill "$gateway"; rm -rf "$scratch"' EXIT
cat > "$scratch/gatecrew.yaml" <<YAML
listen: [127.0.0.1:9001]
log: {access: "$scratch/access.log"}
pools:
  hello: {app: "wsgi_hello:app", workers: 2, chdir: $PWD/bench/apps}
sites:
  - routes:
      - {path: /static, static: {dir: $PWD/examples/public}}
      - {path: /cgi, cgi: {dir: $PWD/bench/apps, extensions: {".sh": /bin/sh}}}
      - {path: /, pool: hello}
YAML
go build -o "$scratch/pgo" ./bench/pgo
for load in /:8 /static/index.html:4 /cgi/hello.sh:4; do
	path=${load%:*}
	rm -f "$scratch/ready"
	"$scratch/pgo" "$scratch/gatecrew.yaml" "$scratch/$(echo "$path" | tr / _).prof" > "$scratch/ready" &
	gateway=$!
	while ! grep -q ready "$scratch/ready" 2> /dev/null; do sleep 0.1; done
	wrk -t1 -c64 -d"${load#*:}s" "http://127.0.0.1:9001$path" | grep requests
	kill "$gateway"
	wait "$gateway" || true
	gateway=
done
go tool pprof -proto "$scratch/pgo" "$scratch"/*.prof > cmd/gatecrew/default.pgo
