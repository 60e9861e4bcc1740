metadata description = 'Reads a public address that AKS has made.'

@description('Name of the address.')
param name string

resource address 'Microsoft.Network/publicIPAddresses@2024-05-01' existing = {
  name: name
}

@description('The address itself.')
output ipAddress string = address.properties.ipAddress
