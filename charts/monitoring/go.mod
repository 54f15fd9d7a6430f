// The kinds of the Prometheus operator, which charts/test.sh holds the chart's monitoring to. Nothing is built.
module carrack.dev/charts/monitoring

go 1.24.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
