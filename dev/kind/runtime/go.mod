module popularity-reports/runtime

go 1.25.0
