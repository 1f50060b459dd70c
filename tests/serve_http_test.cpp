// What hadal-serve does with heads of requests, and its metrics.
#include <gtest/gtest.h>

#include "serve/http.h"
#include "serve/metrics.h"

namespace hadal::serve {
namespace {

TEST(ServeHttpHost, RoutesAndMethods) {
  EXPECT_EQ(find_route("GET", "/health?x=1")->endpoint, Endpoint::kHealth);
  EXPECT_EQ(find_route("HEAD", "/")->endpoint, Endpoint::kPage);
  EXPECT_EQ(find_route("POST", "/v1/chat/completions")->endpoint, Endpoint::kChat);
  EXPECT_EQ(find_route("GET", "/v1/models/a%2Fb%")->model_id, "a/b%");
  EXPECT_EQ(find_route("GET", "/v1/models/").error().http, 404u);
  EXPECT_EQ(find_route("GET", "/v1/completions").error().http, 405u);
  EXPECT_EQ(find_route("get", "/health").error().http, 405u);
  EXPECT_EQ(find_route("GET", "//health").error().http, 404u);
  EXPECT_EQ(allowed_methods("/tokenize"), "POST, OPTIONS");
  EXPECT_EQ(ResponseHead(200).field("A", "b").text(), "HTTP/1.1 200 OK\r\nA: b\r\n\r\n");
  EXPECT_EQ(printable("a\r\n%s\x80", 4), "a??%...");
  EXPECT_EQ(*parse_priority("-100"), -100);
  for (const char* bad : {"", "101", "1x", " 1", "1.5"})
    EXPECT_FALSE(parse_priority(bad).ok()) << bad;
}

TEST(ServeHttpHost, Access) {
  ServerOptions options;
  options.api_keys = {"one", "another key"};
  options.cors_origins = {"https://good.example"};
  options.allowed_hosts = {"box.local"};
  const auto status = [&](RequestHead head, Endpoint endpoint = Endpoint::kModels) {
    const auto error = check_access(head, endpoint, options);
    return error ? error->http : 200u;
  };
  RequestHead head{"GET", "/v1/models", "Bearer one", "", "127.0.0.1:8000"};
  EXPECT_EQ(status(head), 200u);
  for (const char* key :
       {"", "one", "Bearer on", "Bearer onee", "Bearer ", "Bearer  one", "Basic one"}) {
    RequestHead other = head;
    other.authorization = key;
    EXPECT_EQ(status(other), 401u) << key;
    EXPECT_EQ(status(other, Endpoint::kHealth), 200u);
    EXPECT_EQ(status(other, Endpoint::kMetrics), 401u);
  }
  for (const char* host : {"localhost", "[::1]:80", "10.0.0.7", "box.local:8000"}) {
    head.host = host;
    EXPECT_EQ(status(head), 200u) << host;
  }
  head.host = "evil.example";
  EXPECT_EQ(status(head), 403u);
  options.host = "0.0.0.0";  // who listens to the world has many names
  EXPECT_EQ(status(head), 200u);
  for (const auto& [origin, code] :
       std::vector<std::pair<std::string, uint32_t>>{{"https://good.example", 200},
                                                     {"http://evil.example", 200},
                                                     {"https://evil.example", 200},
                                                     {"http://evil.example.org", 403},
                                                     {"null", 403},
                                                     {"http://good.example", 403}}) {
    head.origin = origin;
    EXPECT_EQ(status(head), code) << origin;
  }
}

TEST(ServeHttpHost, ErrorsHaveOpenAisShape) {
  for (const auto& [http, type] :
       std::vector<std::pair<uint32_t, std::string>>{{400, "invalid_request_error"},
                                                     {401, "authentication_error"},
                                                     {404, "invalid_request_error"},
                                                     {429, "rate_limit_error"},
                                                     {500, "server_error"},
                                                     {503, "server_error"},
                                                     {504, "timeout_error"}}) {
    const ApiError error{http, "a \"message\"", http == 400 ? "n" : "", "", 0};
    EXPECT_EQ(error.body(), R"({"error":{"message":"a \"message\"","type":")" + type +
                                R"(","param":)" + (http == 400 ? "\"n\"" : "null") +
                                R"(,"code":null}})");
  }
  EXPECT_EQ(error_of({Errc::kInvalidArgument, "x"}).http, 400u);
  EXPECT_EQ(error_of({Errc::kCancelled, "x"}).http, 503u);
  EXPECT_EQ(error_of({Errc::kInternal, "x"}).http, 500u);
}

TEST(ServeMetricsHost, TextAsPrometheusReadsIt) {
  Histogram histogram({0.5, 1, 2});
  for (const double value : {0.25, 0.5, 0.75, 2.0, 3.0}) histogram.add(value);
  std::string out;
  histogram.append(out, "h", "Help.");
  EXPECT_EQ(out,
            "# HELP h Help.\n# TYPE h histogram\nh_bucket{le=\"0.5\"} 2\nh_bucket{le=\"1\"} 3\n"
            "h_bucket{le=\"2\"} 4\nh_bucket{le=\"+Inf\"} 5\nh_sum 6.5\nh_count 5\n");
  Metrics metrics;
  metrics.finished["stop"] = 3;
  metrics.responses[200] = 4;
  Metrics::Now now;
  now.engine.pages.total = 9, now.connections = 2;
  const std::string text = metrics.text(now);
  for (const char* line : {"hadal_cache_pages 9\n", "hadal_connections 2\n",
                           "hadal_requests_total{finish=\"stop\"} 3\n",
                           "hadal_http_responses_total{code=\"200\"} 4\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line;
  }
}

TEST(ServeMetricsHost, TheRateIsOfWholeSeconds) {
  using std::chrono::seconds;
  TokenRate rate;
  const TokenRate::Time begin{seconds(1000)};
  for (int i = 0; i < 10; ++i) rate.add(begin + seconds(i), 20);
  EXPECT_EQ(rate.per_second(begin + seconds(9)), 20.0);   // seconds 4 to 8
  EXPECT_EQ(rate.per_second(begin + seconds(12)), 12.0);  // 7 to 11: three of five
  EXPECT_EQ(rate.per_second(begin + seconds(100000)), 0.0);
}

}  // namespace
}  // namespace hadal::serve
