FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
WORKDIR /src
RUN python -m venv /opt/spendbrake
COPY requirements.lock .
RUN /opt/spendbrake/bin/pip install --require-hashes -r requirements.lock
COPY . .
# With compiled detectors: the hook takes gcc, which stays here.
RUN HATCH_BUILD_HOOK_ENABLE_CUSTOM=true /opt/spendbrake/bin/pip install --no-deps .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin spendbrake \
    && install -d -o spendbrake -g spendbrake -m 0700 /var/lib/spendbrake
COPY --from=build /opt/spendbrake /opt/spendbrake
ENV PATH=/opt/spendbrake/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SPENDBRAKE_DATA_DIR=/var/lib/spendbrake \
    SPENDBRAKE_LOG__FORMAT=json \
    SPENDBRAKE_METRICS__PORT=9108
USER spendbrake
VOLUME /var/lib/spendbrake
EXPOSE 8080 9108
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9108/healthz', timeout=2)"]
ENTRYPOINT ["spendbrake"]
CMD ["up"]
