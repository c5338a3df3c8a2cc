"""Records -> one offline HTML page, its data as JSON and CSV, a static figure. ``build.build_report`` is the way in."""
