#!/bin/sh
# Generates gen/ from protos/, with the generators that go.mod pins. Needs Go and protoc; PROTOC names another one, such
# as PROTOC="python -m grpc_tools.protoc".
set -eu

cd "$(dirname "$0")"
protos=${PROTOS:-../../protos}
proto=telemetry_broker/v1/broker.proto
module=github.com/telemetry-broker/telemetry-broker/examples/go
go build -o bin/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
# shellcheck disable=SC2086 # PROTOC may be several words
PATH="$PWD/bin:$PATH" ${PROTOC:-protoc} --proto_path="$protos" \
    --go_out=. --go_opt="module=$module,M$proto=$module/gen/telemetry_broker/v1" \
    --go-grpc_out=. --go-grpc_opt="module=$module,M$proto=$module/gen/telemetry_broker/v1" \
    "$protos/$proto"
