# SPDX-License-Identifier: MPL-2.0

<#
.SYNOPSIS
Registers and starts Vault Agent as a Windows service that installs the sensor.

.DESCRIPTION
Copies the folder that this script is in to C:\ProgramData\mdi, for SYSTEM and
administrators alone. It needs to hold agent.hcl, access-key.ctmpl, install-sensor.ps1,
role-id, secret-id and the unpacked sensor package. Run it as an administrator, from a
folder that only administrators can write; running it again only starts the service.

.PARAMETER Vault
Full path of vault.exe, in a folder that only administrators can write.
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory)] [string] $Vault
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$folder = 'C:\ProgramData\mdi'
$service = 'MdiVaultAgent'

# The folder holds the secret ID, for a moment the key, and a script that runs as
# SYSTEM. Every user may write to ProgramData, so a folder that is there already could
# be anybody's, and the new one is looked into after it has been closed. Accounts are
# named by SID, since their names are translated.
function New-ProtectedFolder {
    New-Item -ItemType Directory -Path $folder | Out-Null
    icacls.exe $folder /inheritance:r /grant:r '*S-1-5-18:(OI)(CI)F' '*S-1-5-32-544:(OI)(CI)F' | Out-Null
    if ($LASTEXITCODE -ne 0) {
        throw "The access to $folder could not be restricted."
    }
    if (Get-ChildItem -LiteralPath $folder -Force) {
        throw "Somebody has put something into $folder. Remove it first."
    }
}

if (-not (Get-Service -Name $service -ErrorAction SilentlyContinue)) {
    New-ProtectedFolder
    Copy-Item -Path (Join-Path $PSScriptRoot '*') -Destination $folder -Recurse
    New-Service -Name $service -DisplayName 'Vault Agent for Defender for Identity' -StartupType Automatic `
        -BinaryPathName "`"$Vault`" agent -config=`"$folder\agent.hcl`" -log-file=`"$folder\agent.log`"" | Out-Null
}
Start-Service -Name $service
