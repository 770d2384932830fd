package otlp

import (
	"bytes"
	"context"
	"io"
	"net/http"

	collogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 64 << 10

// note counts the records that an answer rejects, and removes that from the answer: the SDK would return an
// error that looks like one after which the records must be sent again.
func (e *Exporter) note(answer *collogs.ExportLogsServiceResponse) {
	e.rejected.Store(max(0, answer.GetPartialSuccess().GetRejectedLogRecords()))
	answer.PartialSuccess = nil
}

// intercept takes partial success, and a request that the receiver cannot accept as it is, out of an answer over
// gRPC.
func (e *Exporter) intercept(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	err := invoke(ctx, method, request, reply, conn, options...)
	if status.Code(err) == codes.InvalidArgument {
		e.rejected.Store(allRejected)
		return nil
	}
	if answer, ok := reply.(*collogs.ExportLogsServiceResponse); ok && err == nil {
		e.note(answer)
	}
	return err
}

// rejections is intercept over HTTP.
type rejections struct {
	transport http.RoundTripper
	exporter  *Exporter
}

func (r *rejections) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := r.transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	switch response.StatusCode {
	case http.StatusOK:
		body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
		_ = response.Body.Close()
		if err != nil {
			return nil, err
		}
		var answer collogs.ExportLogsServiceResponse
		if response.Header.Get("Content-Type") == "application/x-protobuf" && proto.Unmarshal(body, &answer) == nil {
			r.exporter.note(&answer)
		}
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		_ = response.Body.Close()
		r.exporter.rejected.Store(allRejected)
		response.StatusCode, response.Status = http.StatusOK, "200 OK"
	default:
		return response, nil
	}
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(nil)), 0
	return response, nil
}
