package driver

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// locks lets one call at a time work on a volume, a snapshot or a name. A call waits as long as its caller does.
type locks struct {
	mutex sync.Mutex
	held  map[string]chan struct{}
}

// acquire takes all keys in one order, so that no two calls wait for each other. The answer gives them back.
func (l *locks) acquire(ctx context.Context, keys ...string) (func(), error) {
	slices.Sort(keys)
	keys = slices.Compact(keys)
	for i, key := range keys {
		if err := l.take(ctx, key); err != nil {
			l.release(keys[:i])
			return nil, err
		}
	}
	return func() { l.release(keys) }, nil
}

func (l *locks) take(ctx context.Context, key string) error {
	for {
		l.mutex.Lock()
		wait, held := l.held[key]
		if !held {
			l.held[key] = make(chan struct{})
			l.mutex.Unlock()
			return nil
		}
		l.mutex.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return status.Errorf(codes.Aborted, "another call works on %s: try again", key)
		}
	}
}

func (l *locks) release(keys []string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for _, key := range keys {
		close(l.held[key])
		delete(l.held, key)
	}
}
