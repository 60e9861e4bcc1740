// What has no default, with examples: copy it, fill it in, and pass it to az deployment group create.
using 'main.bicep'

param namePrefix = 'reports'
param databaseAdministratorObjectId = '00000000-0000-0000-0000-000000000000'
param databaseAdministratorName = 'database-administrators'
param clusterAdministratorGroupIds = ['00000000-0000-0000-0000-000000000000']
